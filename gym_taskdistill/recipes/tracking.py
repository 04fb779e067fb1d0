"""Tracking a run on Weights & Biases: what its stages write for TensorBoard, its settings and its scores."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gym_taskdistill import files
from gym_taskdistill.dataset.card import Score
from gym_taskdistill.errors import TaskDistillError, import_extra
from gym_taskdistill.safe_yaml import shortened

#: Project on Weights & Biases, unless the environment variable ``WANDB_PROJECT`` names another.
PROJECT = "gym-taskdistill"

#: File in a run's folder by which a resumed run goes on with the same curves.
ID_FILE = "wandb-id.txt"


def library() -> Any:
    """Import wandb.

    Raises:
        TaskDistillError: It is not installed.
    """
    return import_extra("wandb", "track", "Tracked runs")


@contextlib.contextmanager
def tracked(
    folder: Path, entry: str, seed: int, recipe: Mapping[str, Any]
) -> Iterator[Callable[[Sequence[Score]], None]]:
    """Track what is done within a block.

    wandb follows TensorBoard's files, which the stages write anyway, so that the run itself is the same.

    Args:
        folder: Folder of the run; wandb keeps its own files in it.
        entry: Full name of the entry that the run makes.
        seed: Seed of the run.
        recipe: All settings.

    Yields:
        What takes the final scores.

    Raises:
        TaskDistillError: wandb is not installed, or it cannot begin, as without a login.
    """
    wandb = library()
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=entry,
            name=f"{entry} seed={seed}",
            id=_id(folder),
            resume="allow",
            dir=str(folder),
            config={"recipe": dict(recipe), "seed": seed},
            sync_tensorboard=True,
        )
    except Exception as error:  # of its service, of its transport, of a missing login
        reason = shortened((str(error).strip().splitlines() or [type(error).__name__])[0], 200)
        raise TaskDistillError(
            f"The run cannot be tracked: {reason.rstrip('.')}. Log in by `wandb login`, or set "
            "WANDB_MODE=offline."
        ) from None

    def tell(scores: Sequence[Score]) -> None:
        for score in scores:
            policy = "deterministic" if score.deterministic else "stochastic"
            figures = {"mean": score.mean, "std": score.std, "min": score.min}
            run.summary.update({f"test/{score.learners}/{policy}/{k}": v for k, v in figures.items()})

    try:
        yield tell
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def _id(folder: Path) -> str:
    """Return the id of a run, the same when it resumes."""
    file = folder / ID_FILE
    if not file.is_file():
        files.write_text(file, secrets.token_hex(8) + "\n")
    return file.read_text(encoding="utf-8").strip()
