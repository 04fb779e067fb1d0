"""``python -m gym_taskdistill.train``: distil an environment into a dataset."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from gym_taskdistill import zoo
from gym_taskdistill.cli.common import (
    allow_typed,
    key_values,
    print_scores,
    printable,
    run_command,
    seed_list,
)
from gym_taskdistill.cli.summary import print_summaries
from gym_taskdistill.distill import distributed
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.machine import use_threads
from gym_taskdistill.recipes import tracking
from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.group import group_folder, summaries, train_group
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.run import Run

#: What is distilled when nothing is named: 2D cart-pole into three rows, a minute.
DEMO = "CartPoleND-v0/n=2,k_min"


@dataclass(frozen=True)
class TrainArgs:
    """Distil an environment into a few rows on which any fresh network learns to act in one step.

    Without arguments: 2D cart-pole into three rows, about a minute, then the score of 100 fresh agents.
    taskdistill recipes lists all tasks that have a recipe, and their variants.
    """

    recipe: tyro.conf.Positional[str] = DEMO
    """A task (Hopper-v4), one with a variant (Hopper-v4/ten-steps), the full name of an entry
    (CartPoleND-v0/n=3,k_min), a recipe of agents/ (cartpole), or a recipe file (my.yaml, my.yaml:variant)."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, as key=value: --env-kwargs n=3."""

    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Settings to change, in all stages that have them: --set k=512 learning_rate=lin_0.01 inner.steps=10; in
    one stage: --set 2.total_timesteps=100_000; of the tests: --set evaluation.n_agents=64."""

    total_timesteps: int | None = None
    """Env steps of each stage that learns by them, in place of the recipe's."""

    tune: int = 0
    """Short trials of the first stage that choose its settings before the run begins, such as 20; each takes
    a fifth of the stage's env steps at most. Needs pip install "gym-taskdistill[tune]"."""

    seed: int | None = None
    """Seed that makes the run reproducible on one machine; drawn and printed if not given."""

    seeds: str | None = None
    """Several seeds, such as 0-4 or 0,3,7: a group of runs, one for each, in one folder. The same command
    resumes it."""

    jobs: int = 1
    """Runs of a group at once, one process each; -1 for as many as there are cores."""

    out: Path = Path("runs")
    """Folder under which the run, or the group, gets a folder of its own."""

    resume: Path | None = None
    """Folder of an interrupted run to resume; all its settings are kept."""

    warm_start: str | None = None
    """A dataset file or zoo entry from which the first stage starts, in place of random rows."""

    trust: bool = False
    """Run the code that files name: modules of environments and wrappers, functions that make learners, and
    models that SB3 pickled."""

    device: str = "auto"
    """Torch device: auto, cpu or cuda."""

    n_threads: int = 1
    """Cores that simulate, -1 for all: threads of EnvPool and of the emulators of Atari games, processes of
    other environments and of an expert that looks ahead. The result is the same for any number."""

    torch_threads: int = 1
    """CPU threads of torch: one is the fastest for small learners; more help the convolutions of images, and
    may change a result's last bits."""

    track: bool = False
    """Track the run on Weights & Biases, in the project that WANDB_PROJECT names or else gym-taskdistill.
    Needs pip install "gym-taskdistill[track]"."""

    progress_bar: bool = True
    """Show progress, time left and score."""


def train(args: TrainArgs) -> None:
    """Run the command."""
    if args.seeds is not None or args.jobs != 1:
        _refuse_with_seeds(args)
    if args.track:
        tracking.library()  # refuses before there is a folder
    use_threads(args.n_threads, args.torch_threads)
    distributed.start(args.device)
    if not args.recipe.partition(":")[0].endswith((".yaml", ".yml")):
        allow_typed(args.recipe)
    if args.seeds is not None:
        _train_group(args, seed_list(args.seeds))
        return
    is_first = distributed.rank() == 0
    run = distributed.from_first(_run(args) if is_first else None)
    assert run is not None
    if is_first:
        print(f"{run.recipe.entry} -> {run.folder} (seed {run.seed})", flush=True)
    try:
        dataset = run.execute(args.progress_bar, args.device, track=args.track)
    except KeyboardInterrupt:
        word = " --trust" if args.trust or ":" in run.recipe.env_id else ""
        word += " --track" if args.track else ""
        print(f"\nInterrupted. Resume with: python -m gym_taskdistill.train --resume {run.folder}{word}")
        raise SystemExit(130) from None
    if is_first:
        print_scores(f"Fresh agents on {dataset!r}", dataset.card.scores)
        print(f"Dataset: {run.result}")


def _run(args: TrainArgs) -> Run:
    if args.resume is not None:
        return Run.open(args.resume)
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if args.seed is None else args.seed
    return Run.create(_recipe(args), seed, args.out, warm_start=_start(args), tune=args.tune)


def _recipe(args: TrainArgs) -> Recipe:
    changes = key_values(args.set, "--set")
    if args.total_timesteps is not None:
        changes["total_timesteps"] = args.total_timesteps
    return load(args.recipe, key_values(args.env_kwargs, "--env-kwargs"), changes)


def _start(args: TrainArgs) -> Path | None:
    return None if args.warm_start is None else zoo.resolve(args.warm_start)


def _refuse_with_seeds(args: TrainArgs) -> None:
    """Refuse what does not go with several seeds."""
    if args.seeds is None:
        raise TaskDistillError("--jobs is for several runs: give --seeds 0-4, or leave it out.")
    if args.seed is not None:
        raise TaskDistillError("Give --seed or --seeds, not both.")
    if args.resume is not None:
        raise TaskDistillError("The runs of --seeds are resumed by the same command, without --resume.")
    if args.tune:
        raise TaskDistillError(
            "--tune is for one run, since each would choose settings of its own: tune one, then give "
            "--seeds with --set and what it has chosen."
        )
    if "RANK" in os.environ:
        raise TaskDistillError("torchrun distils one seed in several processes: give --seed, not --seeds.")


def _train_group(args: TrainArgs, seeds: Sequence[int]) -> None:
    """Make a group of runs, and tell what they come to."""
    recipe = _recipe(args)
    folder = group_folder(args.out, recipe)
    threads = args.n_threads, args.torch_threads
    options: dict[str, Any] = {"warm_start": _start(args), "device": args.device, "threads": threads}
    options["track"] = args.track
    members = train_group(recipe, seeds, folder, args.jobs, progress_bar=args.progress_bar, **options)
    print(f"{recipe.entry} -> {folder} (seeds {args.seeds})", flush=True)
    failed = False
    try:
        for member in members:
            score, failed = member.score, failed or bool(member.error)
            told = "" if score is None else "{} ± {}, worst agent {}".format(*score.figures)
            print(printable(f"seed {member.seed}: {member.error or told}"), flush=True)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command resumes.")
        raise SystemExit(130) from None
    print_summaries(summaries(folder))
    if failed:
        raise SystemExit(1)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(TrainArgs, train, argv)


if __name__ == "__main__":
    main()
