"""``python -m gym_taskdistill.baselines``: what simpler things than distillation score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from gym_taskdistill import seeds
from gym_taskdistill.cli.common import dataset_path, key_values, print_columns, results_name, run_command
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.uses.baselines import BASELINES, HEAD, Protocol, row, run


@dataclass(frozen=True)
class BaselinesArgs:
    """Set simpler things beside a dataset, with its k and its learners, and tell what they score.

    Rows: the distilled ones, these with their labels permuted, k random and k clustered observations with an
    expert's labels; each with one step, ten steps and ridge regression. Then a linear policy, behaviour
    cloning, CMA-ES over the rows, random actions, the best single action, and the expert itself.

    Interrupted, the same command resumes.
    """

    dataset: tyro.conf.Positional[str]
    """A dataset file, a zoo entry such as CartPoleND-v0/n=2,k_min, or a task, which means its default one."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the zoo entry's environment, as key=value: --env-kwargs n=3."""

    variant: str | None = None
    """Variant of the zoo entry; by default the one the zoo recommends."""

    only: tuple[str, ...] = ()
    """Baselines to measure, such as distilled,own random-real,ridge linear; by default all."""

    expert: str | None = None
    """Who labels real observations: an entry, a dataset file, or a model that SB3 saved (ppo:model.zip). By
    default agents of the dataset, who vote."""

    expert_steps: int = 10_000
    """Env steps that are recorded of the expert."""

    agents: int | None = None
    """Agents to test; by default as many as the dataset's card tells of."""

    episodes: int | None = None
    """Full episodes for each; likewise."""

    selection_agents: int = 20
    """Agents, of an episode each, that choose a rate or an action, on another seed than the test's."""

    env_steps: int = 0
    """Env steps of CMA-ES; by default as many as the dataset's stages took."""

    n_updates: int = 5000
    """Updates of behaviour cloning."""

    deterministic: bool = False
    """Take the most likely action instead of sampling."""

    seed: int = 0
    """Seed of the recording and of what is drawn; the tests have seeds of their own."""

    jobs: int = 1
    """Baselines at once, one process and one thread each."""

    out: Path | None = None
    """Folder of the results; by default runs/baselines/ENTRY."""

    trust: bool = False
    """Run the code that files name: modules of environments and wrappers, functions that make learners, and
    models that SB3 pickled."""


def baselines_command(args: BaselinesArgs) -> None:
    """Run the command."""
    path = dataset_path(args.dataset, args.variant, key_values(args.env_kwargs, "--env-kwargs"))
    dataset = DistilledDataset.load(path)
    tested = dataset.card.scores[0] if dataset.card.scores else None
    protocol = Protocol(
        dataset=dataset.digest,
        expert=args.expert or str(path),
        expert_steps=args.expert_steps,
        agents=args.agents or (tested.n_agents if tested else 100),
        episodes=args.episodes or (tested.n_episodes if tested else 1),
        selection_agents=args.selection_agents,
        env_steps=args.env_steps,
        n_updates=args.n_updates,
        deterministic=args.deterministic,
        seed=seeds.checked(args.seed),
    )
    folder = args.out or Path("runs/baselines") / results_name(dataset)
    results = []
    try:
        for result in run(dataset, protocol, folder, args.only or BASELINES, args.jobs):
            results.append(result)
            print("  ".join(text for text in row(result)[:3] if text), flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command resumes.")
        raise SystemExit(130) from None
    order = {name: i for i, name in enumerate(BASELINES)}
    print()
    print(f"{dataset.card.task}, k={dataset.k}")
    rows = [row(result) for result in sorted(results, key=lambda result: order[result.baseline])]
    print_columns(HEAD, rows, left=("baseline", "chosen"))
    print(
        f"{protocol.agents} agents x {protocol.episodes} full episodes each, raw rewards; all figures over "
        f"agents' mean returns.\n{folder / 'baselines.csv'}"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(BaselinesArgs, baselines_command, argv)


if __name__ == "__main__":
    main()
