"""The card of a distilled dataset: where it came from and what it scored, as plain JSON data."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar

from gymnasium import Space
from pydantic import AfterValidator, Field, field_validator

from gym_taskdistill.dataset.aggregates import Aggregates
from gym_taskdistill.dataset.lineage import Distillation, StageRecord, versions
from gym_taskdistill.dataset.plain import as_dict, as_float, as_int, as_plain, ordered
from gym_taskdistill.dataset.score import Score, digits
from gym_taskdistill.dataset.spaces import as_space_dict, is_image, space_to_dict
from gym_taskdistill.errors import DatasetError, TaskDistillError
from gym_taskdistill.learners.limits import check_description
from gym_taskdistill.learners.named import code_of
from gym_taskdistill.schema import Schema, Seconds
from gym_taskdistill.tasks.spaces import flat_observation_space
from gym_taskdistill.tasks.task import Task

__all__ = [
    "Card",
    "Distillation",
    "Score",
    "StageRecord",
    "as_dict",
    "as_float",
    "as_int",
    "as_plain",
    "bare_id",
    "described",
    "digits",
    "is_image",
    "space_to_dict",
    "versions",
]

#: Free-form settings, keys sorted, so that a card is the same however its dictionaries were filled.
Settings = Annotated[dict[str, Any], AfterValidator(lambda value: ordered(value, "card"))]


class Card(Schema):
    """Everything about a dataset that is not a number the learner trains on.

    All fields hold plain JSON data (sequences in settings become lists, NumPy scalars become Python numbers),
    so that reading a card never runs code and never depends on another library's version.

    Attributes:
        env_id: Gymnasium id of the task, with or without its ``"module:"`` prefix.
        observation_space: The space as `space_to_dict` gives it, after the task's preprocessing; flat.
        action_space: The environment's own space as `space_to_dict` gives it.
        learners: Plain specification of the learner distribution.
        env_kwargs: Keyword arguments of the environment; a missing key means its default.
        wrappers: What is put around the environment, first to last; see `Task`.
        unrecorded: What of the environment the card cannot tell; it must then be given as a function.
        env_observation_space: The environment's own space of observations, where ``observation_space`` is
            another: that of `gym_taskdistill.tasks.spaces.flatten`.
        variant: Short name that tells apart the datasets of one task, such as ``"k_min"``.
        default: Whether this is the variant to use when none is named.
        lineage: The stages that made it, first to last; empty for a dataset that was made by hand and for
            legacy ones, whose making their ``recipe`` and ``notes`` tell only in part.
        selection: Score on the selection seed, by which datasets of one entry are compared.
        distillations: The runs of the same recipe with other seeds, this one among them.
        recipe: All hyperparameters of a legacy dataset's run.
        seed: Seed of the run, or None if it was not fixed.
        num_timesteps: Environment steps used, at least 0.
        wall_clock_s: Seconds that the run spent in training, its tests included; at least 0.
        versions: Versions of the libraries involved, see `versions`.
        created: ISO 8601 date, or empty.
        notes: A sentence of free text.
        scores: Evaluations of this dataset on the test seed.
        format_version: Version of the file format.

    Raises:
        DatasetError: If a value is not of its type or range.
    """

    error: ClassVar[type[TaskDistillError]] = DatasetError
    label: ClassVar[str] = "card"

    env_id: Annotated[str, Field(min_length=1)]
    observation_space: Settings
    action_space: Settings
    learners: Settings
    env_kwargs: Settings = Field(default_factory=dict)
    wrappers: tuple[Settings, ...] = ()
    unrecorded: str = ""
    env_observation_space: Settings | None = None
    variant: str = ""
    default: bool = False
    lineage: tuple[StageRecord, ...] = ()
    selection: Score | None = None
    distillations: tuple[Distillation, ...] = ()
    recipe: Settings = Field(default_factory=dict)
    seed: int | None = None
    num_timesteps: Annotated[int, Field(ge=0)] = 0
    wall_clock_s: Seconds = 0.0
    versions: dict[str, str] = Field(default_factory=dict)
    created: str = ""
    notes: str = ""
    scores: tuple[Score, ...] = ()
    format_version: Annotated[int, Field(ge=1, le=2)] = 2

    @field_validator("observation_space", "action_space", "env_observation_space")
    @classmethod
    def _is_a_space(cls, value: dict[str, Any] | None, info: Any) -> dict[str, Any] | None:
        return None if value is None else as_space_dict(value, f"card.{info.field_name}")

    @field_validator("wrappers")
    @classmethod
    def _are_wrappers(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for wrapper in value:
            entry_point, kwargs = wrapper.get("entry_point"), wrapper.get("kwargs")
            named = isinstance(entry_point, str) and re.fullmatch(r"[\w.]+:\w+", entry_point)
            if not named or not isinstance(kwargs, dict) or len(wrapper) != 2:
                raise ValueError('must each have an entry_point "module:Class" and kwargs')
        return value

    @field_validator("learners")
    @classmethod
    def _is_bounded(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            check_description(value)
        except ValueError as error:
            raise DatasetError(f"card.learners: {error}") from None
        return value

    @field_validator("versions")
    @classmethod
    def _sorted(cls, value: dict[str, str]) -> dict[str, str]:
        return {key: value[key] for key in sorted(value)}

    @field_validator("created")
    @classmethod
    def _is_a_date(cls, value: str) -> str:
        if value:
            try:
                datetime.fromisoformat(value)
            except ValueError:
                raise ValueError('must be an ISO 8601 date such as "2026-01-31"') from None
        return value

    @property
    def task(self) -> str:
        """The task in one line, such as ``CartPoleND-v0 n=2``."""
        return str(Task(bare_id(self.env_id), self.env_kwargs, self.wrappers))

    @property
    def code(self) -> tuple[str, ...]:
        """Code that the card names: modules of the environment and its wrappers, functions of the learners.

        None of it runs unless `gym_taskdistill.trust` allows it.
        """
        modules = [self.env_id.rpartition(":")[0]]
        modules += [str(wrapper["entry_point"]).partition(":")[0] for wrapper in self.wrappers]
        return (*filter(None, modules), *code_of(self.learners))

    @property
    def own_observation_space(self) -> dict[str, Any]:
        """The environment's own space of observations."""
        return self.env_observation_space or self.observation_space

    @property
    def legacy(self) -> bool:
        """Whether the card cannot tell as stages how the dataset was made."""
        return not self.lineage

    @property
    def over_distillations(self) -> Aggregates | None:
        """What the mean returns of the distillations come to; ``None`` if there are fewer than two."""
        means = [one.mean for one in self.distillations]
        return Aggregates.of(means) if len(means) > 1 else None


def described(task: Task, observation_space: Space[Any], action_space: Space[Any]) -> dict[str, Any]:
    """Return what a card says of a task.

    Args:
        task: The task.
        observation_space: The environment's own space.
        action_space: Likewise.

    Raises:
        DatasetError: A space is not supported.
    """
    own, flat = space_to_dict(observation_space), space_to_dict(flat_observation_space(observation_space))
    return {
        "env_id": task.env_id,
        "env_kwargs": dict(task.env_kwargs),
        "wrappers": task.wrappers,
        "unrecorded": task.unrecorded,
        "observation_space": flat,
        "env_observation_space": None if own == flat else own,
        "action_space": space_to_dict(action_space, bounds=True),
    }


def bare_id(env_id: str) -> str:
    """Return a Gymnasium id without its module prefix.

    >>> bare_id("gym_taskdistill:CartPoleND-v0")
    'CartPoleND-v0'
    """
    return env_id.rpartition(":")[2]
