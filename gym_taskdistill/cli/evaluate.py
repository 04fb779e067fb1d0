"""``python -m gym_taskdistill.evaluate``: train fresh agents on a dataset and test them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from stable_baselines3.common.utils import get_device

from gym_taskdistill import zoo
from gym_taskdistill.cli.common import (
    allow_typed,
    dataset_path,
    key_values,
    over_text,
    print_columns,
    print_scores,
    printable,
    progress,
    run_command,
    seed_list,
)
from gym_taskdistill.dataset.aggregates import Aggregates
from gym_taskdistill.dataset.card import Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import write_text
from gym_taskdistill.hub import is_address
from gym_taskdistill.learners import learner_distribution, without_groups
from gym_taskdistill.machine import use_threads
from gym_taskdistill.policies.ensemble import EnsembleRule
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.recipes.reproduce import load_distillation
from gym_taskdistill.seeds import TEST
from gym_taskdistill.tasks.task import Task


@dataclass(frozen=True)
class EvaluateArgs:
    """Train fresh agents on a dataset, one inner step each, and test them on its environment."""

    dataset: tyro.conf.Positional[str]
    """A dataset file, or a zoo entry: CartPoleND-v0, or in full CartPoleND-v0/n=2,k_min."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the zoo entry's environment, as key=value: --env-kwargs n=3."""

    variant: str | None = None
    """Variant of the zoo entry; by default the one the zoo recommends."""

    env_id: str | None = None
    """Environment to test on, in place of the dataset's, that looks alike and has the same actions:
    --env-id ALE/SpaceInvaders-v5, where actions stick."""

    agents: int = 100
    """Number of fresh agents."""

    episodes: int = 100
    """Full episodes for each agent."""

    learners: tuple[str, ...] = ()
    """Learner distributions to draw agents from, by name; table_1 stands for the paper's six columns,
    any_network for twelve architectures that differ more, and package.module:function for networks that a
    function makes. By default the one the dataset was distilled over."""

    ensemble: int = 1
    """Fresh learners in each agent, which act as one."""

    ensemble_rule: Literal["mean", "majority", "median"] = "mean"
    """How they do: by the mean of their action probabilities (or of continuous actions), by a majority of
    their most likely actions, or by the median of continuous ones."""

    trust: bool = False
    """Run the code that files name: modules of environments and wrappers, functions that make learners, and
    models that SB3 pickled."""

    deterministic: bool = False
    """Take the most likely action instead of sampling."""

    seed: int = TEST
    """Seed of agents, actions and envs."""

    seeds: str | None = None
    """Test several distillations of an entry, such as 0-4, and tell what they come to. The zoo ships one of
    them; the others are what `taskdistill reproduce ENTRY --seeds 0-4` left in its folder."""

    reproduced: Path = Path("runs/reproduce")
    """That folder."""

    record: bool = False
    """Write the scores into the dataset's card, in the place of older ones of the same kind."""

    json: Path | None = None
    """File to which the scores are written as JSON."""

    device: str = "cpu"
    """Torch device: cpu, cuda or auto; a GPU draws other agents from the same seed."""

    jobs: Annotated[int, tyro.conf.arg(aliases=("--n-threads",))] = 1
    """Cores that simulate, -1 for all: threads of the emulators of Atari games, processes of other
    environments. The scores are the same for any number."""

    torch_threads: int = 1
    """CPU threads of torch: one is the fastest for small learners; more help the convolutions of images, and
    may change a result's last bits."""

    progress_bar: bool = True
    """Show progress and time left."""


def evaluate_command(args: EvaluateArgs) -> None:
    """Run the command."""
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise TaskDistillError(f'"{args.json}" cannot be written: there is no folder "{args.json.parent}".')
    if args.record and is_address(args.dataset):
        raise TaskDistillError(f"{args.dataset} takes no scores: pull it into your zoo first.")
    use_threads(args.jobs, args.torch_threads)
    path = dataset_path(args.dataset, args.variant, key_values(args.env_kwargs, "--env-kwargs"))
    dataset = DistilledDataset.load(path)
    EnsembleRule(dataset.spaces[1], args.ensemble_rule)  # refuses before any are tested
    datasets = [dataset] if args.seeds is None else _distillations(args)
    task = _task(args, dataset)
    names: list[str | None] = [*without_groups(args.learners)]
    for learners in names:
        allow_typed(learners)
        if learners is not None:
            learner_distribution(learners)  # refuses before any are tested
    scores: list[list[Score]] = []
    columns = names or [None]
    total = len(datasets) * len(columns) * args.agents * args.episodes
    with progress(total, "episode", args.progress_bar) as bar:
        for one in datasets:
            scores.append(_scores(args, one, columns, task, bar.update))
    if args.seeds is None:
        print_scores(f"{dataset!r}", scores[0])
        told: list[dict[str, Any]] = [score.to_dict() for score in scores[0]]
    else:
        _print_distillations(dataset, datasets, scores)
        told = [
            {"distillation": one.card.seed, "digest": one.digest, **score.to_dict()}
            for one, its in zip(datasets, scores, strict=True)
            for score in its
        ]
    if args.json is not None:
        write_text(args.json, json.dumps(told, indent=2) + "\n")
    if args.record:
        _recorded(dataset, datasets, scores).save(path)


def _task(args: EvaluateArgs, dataset: DistilledDataset) -> Task | None:
    """Return the task to test on where it is not the dataset's own."""
    allow_typed(args.env_id)
    task = None if args.env_id is None else Task(args.env_id, dataset.card.env_kwargs)
    if task is not None and args.record:
        raise TaskDistillError(
            f"A card holds the scores of {dataset.card.env_id}, not of {task}: no --record."
        )
    return task


def _distillations(args: EvaluateArgs) -> list[DistilledDataset]:
    """Load an entry's distillations, one for each seed."""
    entry = zoo.find(args.dataset, args.variant, **key_values(args.env_kwargs, "--env-kwargs"))
    return [load_distillation(entry, seed, args.reproduced) for seed in seed_list(args.seeds or "")]


def _scores(
    args: EvaluateArgs,
    dataset: DistilledDataset,
    columns: Sequence[str | None],
    task: Task | None,
    update: Callable[[int], object],
) -> list[Score]:
    """Score a dataset's agents, drawn from each learner distribution in turn."""
    tested = dataset.to(get_device(args.device))
    return [
        evaluate(
            tested,
            args.agents,
            args.episodes,
            learners=learners,
            ensemble=args.ensemble,
            ensemble_rule=args.ensemble_rule,
            deterministic=args.deterministic,
            seed=args.seed,
            env=task,
            progress=update,
        ).score
        for learners in columns
    ]


def _print_distillations(
    dataset: DistilledDataset, datasets: Sequence[DistilledDataset], scores: Sequence[Sequence[Score]]
) -> None:
    """Print for each learner distribution how the distillations scored, and what that comes to."""
    for its in zip(*scores, strict=True):
        rows = [
            (str(one.card.seed), *score.figures, "ships" if one.digest == dataset.digest else "")
            for one, score in zip(datasets, its, strict=True)
        ]
        print(printable(f"{dataset.card.task}, {its[0].learners}"))
        print_columns(("seed", "mean", "std", "worst agent", ""), rows, left=("",))
        agents = Aggregates.of([mean for score in its for mean in score.agent_means])
        print(over_text(Aggregates.of([score.mean for score in its]), "distillations"))
        print(f"{over_text(agents, 'agents of all of them')}; {agents.far_below:.1%} far below the median")


def _recorded(
    dataset: DistilledDataset, datasets: Sequence[DistilledDataset], scores: Sequence[Sequence[Score]]
) -> DistilledDataset:
    """Return the dataset with its own scores in the card, and those of the distillations that it tells of."""
    of_digest = {one.digest: its for one, its in zip(datasets, scores, strict=True)}
    told = tuple(
        one.replace(scores=merged(one.scores, of_digest.get(one.digest, ())))
        for one in dataset.card.distillations
    )
    card = dataset.card.replace(
        scores=merged(dataset.card.scores, of_digest.get(dataset.digest, ())), distillations=told
    )
    return dataset.replace(card=card)


def merged(old: Sequence[Score], new: Sequence[Score]) -> tuple[Score, ...]:
    """Return scores with new ones in place of those with the same learners and policy."""
    return tuple({(score.learners, score.deterministic): score for score in (*old, *new)}.values())


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(EvaluateArgs, evaluate_command, argv)


if __name__ == "__main__":
    main()
