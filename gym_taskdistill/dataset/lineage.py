"""Where a dataset comes from: the stages that made it, and the runs of other seeds beside it."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from gym_taskdistill.dataset.score import Score
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.schema import Schema, Seconds

_PACKAGES = (
    "gym_taskdistill",
    "gymnasium",
    "stable_baselines3",
    "torch",
    "torchopt",
    "numpy",
    "mujoco",
    "ale_py",
    "envpool",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries a result depends on.

    Only package metadata is read, nothing is imported; packages that are not installed are left
    out.
    """
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("must be a SHA-256 of 64 hexadecimal digits")
    return text


Digest = Annotated[str, AfterValidator(_sha256)]


class StageRecord(Schema):
    """One stage of a run: what it was told, and what it made of what.

    Attributes:
        kind: Kind of the stage, such as ``"ppmo"``.
        settings: All its settings, as a recipe says them, and what the machine decided where one was auto.
        task: The task in one line, such as ``CartPoleND-v0 n=2``.
        seed: Seed of the stage, at least 0.
        env_steps: Environment steps it took, at least 0.
        seconds: Seconds it took, at least 0.
        inputs: SHA-256 digests of what went in, by name, such as ``previous`` or ``expert``.
        output: Digest of the dataset that came out.
        versions: Versions of the libraries involved, see `versions`.

    Raises:
        DatasetError: If a value is not of its type or range.
    """

    error: ClassVar[type[TaskDistillError]] = DatasetError
    label: ClassVar[str] = "stage"

    kind: Annotated[str, Field(min_length=1)]
    settings: dict[str, Any]
    task: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)]
    env_steps: Annotated[int, Field(ge=0)] = 0
    seconds: Seconds = 0.0
    inputs: dict[str, Digest] = Field(default_factory=dict)
    output: Digest
    versions: dict[str, str] = Field(default_factory=versions)


class Distillation(Schema):
    """The same recipe with another seed: what came out, and how it scored.

    Attributes:
        seed: Seed of the run, at least 0.
        digest: Digest of its dataset.
        selection_mean: Mean return on the selection seed, by which the shipped dataset is chosen.
        mean: Mean return on the test seed.
        std: Standard deviation over agents, at least 0.
        min: Worst agent's mean return.
        seconds: Seconds the run took, at least 0.
        scores: Its evaluations on the test seed, as far as they are kept.

    Raises:
        DatasetError: If a value is not of its type or range.
    """

    error: ClassVar[type[TaskDistillError]] = DatasetError
    label: ClassVar[str] = "distillation"

    seed: Annotated[int, Field(ge=0)]
    digest: Digest
    selection_mean: float
    mean: float
    std: Annotated[float, Field(ge=0)]
    min: float
    seconds: Seconds = 0.0
    scores: tuple[Score, ...] = ()
