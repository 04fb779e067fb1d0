"""``python -m gym_taskdistill.search``: which architectures do best, told by a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from gym_taskdistill import seeds
from gym_taskdistill.cli.common import dataset_path, key_values, print_columns, results_name, run_command
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.uses.architectures import SearchSpace
from gym_taskdistill.uses.correlations import correlations, read_reference
from gym_taskdistill.uses.rankings import columns, ranked, table, write_csv
from gym_taskdistill.uses.search import RANKED_BY, SearchProtocol, SearchResult, search


@dataclass(frozen=True)
class SearchArgs:
    """Rank architectures by fresh networks that a dataset trains in a moment.

    A good dataset gives all of them the highest return, so that other traits stand beside it: the return
    under noise of the actions, that in the course of the inner steps (where there are several), the distance
    to the actions of the dataset's own learners, and the loss on its rows.

    Interrupted, the same command resumes.
    """

    dataset: tyro.conf.Positional[str]
    """A dataset file, a zoo entry such as CartPoleND-v0/n=2,universal-ridge, or a task, which means its
    default one."""

    space: tyro.conf.Positional[Path | None] = None
    """A YAML file of lists: width, depth, activation, init, layer_norm, residual. By default there are 36
    architectures."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the zoo entry's environment, as key=value: --env-kwargs n=3."""

    variant: str | None = None
    """Variant of the zoo entry; by default the one the zoo recommends."""

    n_trials: int | None = None
    """Architectures to examine; by default all of the space."""

    sampler: str = "random"
    """How they are chosen where not all of them are examined: random, or by Optuna tpe or nsgaii."""

    by: str = RANKED_BY
    """Trait that the ranking, and the sampler, go by: return, noisy_return, area, distance or loss."""

    agents: int = 10
    """Fresh agents of each architecture."""

    episodes: int = 5
    """Full episodes for each."""

    noise: float = 0.2
    """Share of random actions under noise; of continuous actions the standard deviation of the noise, in
    halves of their range."""

    states: int = 1000
    """States, of the dataset's own agents, at which actions are compared."""

    deterministic: bool = False
    """Take the most likely action instead of sampling."""

    seed: int = 0
    """Seed of the search."""

    returns: Path | None = None
    """A CSV file of returns from real training, with a column architecture: tells how each trait's ranks
    correlate with them (Spearman's rho)."""

    column: str = "return"
    """Its column."""

    jobs: int = 1
    """Architectures at once, one process and one thread each."""

    out: Path | None = None
    """Folder of the results; by default runs/search/ENTRY."""

    trust: bool = False
    """Run the code that files name: modules of environments and wrappers, functions that make learners."""


def search_command(args: SearchArgs) -> None:
    """Run the command."""
    path = dataset_path(args.dataset, args.variant, key_values(args.env_kwargs, "--env-kwargs"))
    dataset = DistilledDataset.load(path)
    space = SearchSpace() if args.space is None else SearchSpace.from_file(args.space)
    reference = None
    if args.returns is not None:
        names = [one.name for one in space.architectures()]
        reference = read_reference(args.returns, args.column, names)
    protocol = SearchProtocol(
        dataset=dataset.digest,
        agents=args.agents,
        episodes=args.episodes,
        noise=args.noise,
        states=args.states,
        deterministic=args.deterministic,
        seed=seeds.checked(args.seed),
    )
    folder = args.out or Path("runs/search") / results_name(dataset)
    found: list[SearchResult] = []
    try:
        for result in search(
            dataset, space, protocol, folder, args.n_trials, args.sampler, args.by, args.jobs
        ):
            found.append(result)
            told = result.failure or f"{args.by} {result.traits[args.by]:.4g}"
            print(f"{result.architecture.name}  {told}", flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command resumes.")
        raise SystemExit(130) from None
    results = ranked(found, args.by)
    write_csv(folder / "search.csv", results)
    print(f"\n{dataset.card.task}, {len(results)} architectures by {args.by}")
    print_columns(*table(results), left=("architecture",))
    print(
        f"{protocol.agents} fresh agents x {protocol.episodes} full episodes each, raw rewards.\n"
        f"{folder / 'search.csv'}"
    )
    if reference is not None:
        print(f"\nSpearman's rho with {args.column} of {args.returns}, 95 % interval over architectures:")
        for name, found_rho in correlations(columns(results), reference).items():
            print(f"{name}: {found_rho}")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(SearchArgs, search_command, argv)


if __name__ == "__main__":
    main()
