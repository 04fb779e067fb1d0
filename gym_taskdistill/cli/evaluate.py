"""``python -m gym_taskdistill.evaluate``: train fresh agents on a dataset and test them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from stable_baselines3.common.utils import get_device

from gym_taskdistill.cli.common import (
    dataset_path,
    key_values,
    print_scores,
    progress,
    run_command,
    trust,
    trust_env,
)
from gym_taskdistill.dataset.card import Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import write_text
from gym_taskdistill.learners import LearnersArg, learner_distribution, without_groups
from gym_taskdistill.machine import use_threads
from gym_taskdistill.policies.evaluation import evaluate
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

    trust: bool = False
    """Import what the dataset's card names, a module of environments or a function that makes learners; that
    runs their code."""

    deterministic: bool = False
    """Take the most likely action instead of sampling."""

    seed: int = TEST
    """Seed of agents, actions and envs."""

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
    use_threads(args.jobs, args.torch_threads)
    path = dataset_path(args.dataset, args.variant, key_values(args.env_kwargs, "--env-kwargs"))
    dataset = DistilledDataset.load(path)
    if args.env_id is not None:
        trust_env(args.env_id)  # the user's own word
    if args.trust:
        trust_env(dataset.card.env_id)
    task = None if args.env_id is None else Task(args.env_id, dataset.card.env_kwargs)
    if task is not None and args.record:
        raise TaskDistillError(
            f"A card holds the scores of {dataset.card.env_id}, not of {task}: no --record."
        )
    names: list[str | None] = [*without_groups(args.learners)]
    if args.trust or any(":" in name for name in args.learners):
        specs: Sequence[LearnersArg] = without_groups(args.learners) or (dataset.card.learners,)
        trust(lambda: [learner_distribution(spec, trust=True) for spec in specs])
    tested = dataset.to(get_device(args.device))
    scores = []
    total = len(names or [None]) * args.agents * args.episodes
    with progress(total, "episode", args.progress_bar) as bar:
        for learners in names or [None]:
            result = evaluate(
                tested,
                args.agents,
                args.episodes,
                learners=learners,
                deterministic=args.deterministic,
                seed=args.seed,
                env=task,
                progress=bar.update,
            )
            scores.append(result.score)
    print_scores(f"{dataset!r}", scores)
    if args.json is not None:
        text = json.dumps([score.to_dict() for score in scores], indent=2)
        write_text(args.json, text + "\n")
    if args.record:
        record_scores(dataset, scores).save(path)


def record_scores(dataset: DistilledDataset, scores: Sequence[Score]) -> DistilledDataset:
    """Return a dataset whose card has these scores, in place of those with the same learners and policy."""
    new = {(score.learners, score.deterministic): score for score in scores}
    kept = {(score.learners, score.deterministic): score for score in dataset.card.scores}
    return dataset.replace(card=dataset.card.replace(scores=tuple({**kept, **new}.values())))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(EvaluateArgs, evaluate_command, argv)


if __name__ == "__main__":
    main()
