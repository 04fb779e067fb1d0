"""``python -m gym_taskdistill.train``: distil an environment into a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from gym_taskdistill.cli.common import dataset_path, key_values, print_scores, run_command
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill import distributed
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.recipes import recipe as recipes
from gym_taskdistill.recipes.run import Run, use_threads


@dataclass(frozen=True)
class TrainArgs:
    """Distil an environment into a few rows on which any fresh network learns to act in one step.

    Without arguments: 2D cart-pole into three rows, one to two minutes, then the score of 100 fresh agents.
    """

    recipe: tyro.conf.Positional[str] = "cartpole"
    """A recipe of agents/, a recipe file (.yaml), or an env id."""

    env_id: str | None = None
    """Environment, in place of the recipe's: mujoco-few --env-id Hopper-v4."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, as key=value: --env-kwargs n=3."""

    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Settings of the recipe to change, PPMO's hyperparameters included:
    --set k=512 learning_rate=lin_0.01."""

    total_timesteps: int | None = None
    """Env steps of the run, in place of the recipe's."""

    seed: int | None = None
    """Seed that makes the run reproducible on one machine; drawn and printed if not given."""

    out: Path = Path("runs")
    """Folder under which the run gets a folder of its own."""

    resume: Path | None = None
    """Folder of an interrupted run to go on with; all its settings are kept."""

    warm_start: str | None = None
    """A dataset file or zoo entry to start from, in place of random rows."""

    roll_back: str | None = None
    """A dataset file or zoo entry with an encoder of l layers, to start from with l - 1: its first layers and
    its rows are kept, one more layer becomes the learners'."""

    device: str = "auto"
    """Torch device: auto, cpu or cuda."""

    n_threads: int = 1
    """CPU threads of torch and of the emulators of Atari games, and processes of an expert that looks ahead;
    learners are small, and one thread is the fastest for them."""

    progress_bar: bool = True
    """Show progress, time left and score."""


def train(args: TrainArgs) -> None:
    """Run the command."""
    use_threads(args.n_threads)
    distributed.start(args.device)
    is_first = distributed.rank() == 0
    run = distributed.from_first(_run(args) if is_first else None)
    assert run is not None
    if is_first:
        print(f"{run.recipe.task} -> {run.folder} (seed {run.seed})")
    try:
        dataset = run.execute(args.progress_bar, args.device)
    except KeyboardInterrupt:
        print(f"\nInterrupted. Go on with: python -m gym_taskdistill.train --resume {run.folder}")
        raise SystemExit(130) from None
    if not is_first:
        return
    print(f"Training fresh agents on {dataset!r} and testing them ...")
    dataset = run.score(dataset)
    print_scores(dataset.card.task, dataset.card.scores)
    print(f"Best dataset: {run.folder / 'best.safetensors'}")


def _run(args: TrainArgs) -> Run:
    return _new_run(args) if args.resume is None else Run.open(args.resume)


def _new_run(args: TrainArgs) -> Run:
    recipe = recipes.load(args.recipe, key_values(args.env_kwargs, "--env-kwargs"), args.env_id)
    changes = key_values(args.set, "--set")
    if args.total_timesteps is not None:
        changes["total_timesteps"] = args.total_timesteps
    recipe = recipe.override(changes)
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if args.seed is None else args.seed
    source = args.warm_start or args.roll_back
    start = None if source is None else str(dataset_path(source, None, {}))
    if args.roll_back is not None:
        recipe = recipe.override({"encoder_layers": _one_layer_less(args, str(start))})
    kwargs = [f"{key}{value}" for key, value in recipe.env_kwargs.items()]
    env = [] if args.env_id is None else [args.env_id]
    name = "-".join([Path(args.recipe).stem, *env, *kwargs]).replace(":", "-")
    return Run.create(recipe, seed, args.out, name, start)


def _one_layer_less(args: TrainArgs, path: str) -> int:
    if args.warm_start is not None:
        raise TaskDistillError("Give --warm-start or --roll-back, not both: both say what to start from.")
    n_layers = DistilledDataset.load(path).encoder_layers
    if not n_layers:
        raise TaskDistillError(f"{args.roll_back} has no encoder that could be rolled back.")
    return n_layers - 1


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(TrainArgs, train, argv)


if __name__ == "__main__":
    main()
