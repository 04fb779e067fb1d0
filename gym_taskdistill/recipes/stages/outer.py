"""The settings of stages that learn a dataset by the outer loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from gymnasium import spaces
from pydantic import Field

from gym_taskdistill.dataset.dataset import k_min
from gym_taskdistill.distill.outer import OuterLoop
from gym_taskdistill.inner.rules import InnerSGD, inner_rule
from gym_taskdistill.learners import learner_distribution
from gym_taskdistill.recipes.settings import (
    Count,
    InnerSetting,
    LearnersSetting,
    NonNegative,
    Positive,
    Rate,
    schedule,
)
from gym_taskdistill.recipes.stages.stage import Promise, RecipeError, Stage, refuse_other
from gym_taskdistill.schema import Schema
from gym_taskdistill.tasks import Task

#: Learned things with a learning rate of their own.
RateName = Literal["inner_lr", "log_std", "obs_scale", "encoder"]


class StartSettings(Schema):
    """Where the learned things start; see `gym_taskdistill.distill.outer.Start`."""

    error = RecipeError

    x_std: Positive = 1.0
    y_std: Positive = 1.0
    log_std: Annotated[float, Field(ge=-20, le=2)] = 0.0
    obs_scale: Positive | None = None


class OuterStage(Stage):
    """A stage that learns by the outer loop: PPMO and imitation share these settings.

    Names and meanings are those of `PPMO`'s arguments.
    """

    learners: LearnersSetting = "alpha_c"
    k: Count | Literal["k_min"] = "k_min"
    n_learners: Count = 4
    learning_rate: Rate = 1e-2
    learning_rates: dict[RateName, Rate] = Field(default_factory=dict)
    max_grad_norm: Positive = 0.5
    inner: InnerSetting = Field(default_factory=dict)
    learn_lr_hidden: bool = False
    start: StartSettings = StartSettings()
    encoder_layers: NonNegative = 0
    normalize: bool = False
    pixel_statistics: NonNegative = 0
    mixed_precision: bool | Literal["auto"] = False

    def n_encoder_layers(self, task: Task) -> int:
        """Return l, the layers of the encoder."""
        return self.encoder_layers

    def outer_kwargs(self, task: Task) -> dict[str, Any]:
        """Return the arguments that `PPMO` and `Imitation` share, with schedules built."""
        return {
            "learners": learner_distribution(self.learners),
            "k": self.promise(task).k,
            "n_learners": self.n_learners,
            "learning_rate": schedule(self.learning_rate),
            "learning_rates": {name: schedule(rate) for name, rate in self.learning_rates.items()},
            "max_grad_norm": self.max_grad_norm,
            "inner": self.inner,
            "learn_lr_hidden": self.learn_lr_hidden,
            "start": self.start.to_dict(),
            "encoder_layers": self.n_encoder_layers(task),
            "pixel_statistics": self.pixel_statistics,
            "mixed_precision": self.mixed_precision,
        }

    def decided(self, loop: OuterLoop) -> dict[str, Any]:
        """Return what the machine decided where a setting is ``auto``, for the lineage."""
        return {"mixed_precision": loop.mixed_precision}

    def promise(self, task: Task) -> Promise:
        """Say what the stage will make of a task.

        Raises:
            TaskDistillError: The task does not exist, k does not fit its actions, the encoder is longer than
                the learners' architecture, or no learner can be drawn.
        """
        space, shape = task.flat_action_space, task.flat_observation_space.shape
        k = self.k
        if k == "k_min":
            if not isinstance(space, spaces.Discrete):
                raise RecipeError(
                    f"k is k_min, which needs discrete actions, but {task} has {type(space).__name__} "
                    "actions; give k as a number, such as 64."
                )
            k = k_min(int(space.n))
        learners, n_layers = learner_distribution(self.learners), self.n_encoder_layers(task)
        learners.check(shape)
        rule = inner_rule(self.inner)
        if not isinstance(rule, InnerSGD):  # which trains whatever there is
            rule.check(learners.sample(1, shape, 2, torch.Generator()))
        if n_layers:
            whole = len(learners.layers(shape, 1))
            if n_layers > whole:
                raise RecipeError(f"encoder_layers is {n_layers}, but {learners} has {whole} layers.")
        return Promise(int(k), learners, n_layers, task)

    def check_start(self, own: Promise, before: Promise) -> None:
        """Refuse to start from a dataset of other rows or learners than one's own."""
        refuse_other("k", own.k, before.k, self.kind)
        refuse_other("learners", str(own.learners), str(before.learners), self.kind)
        if own.encoder_layers > before.encoder_layers:
            refuse_other("encoder_layers", own.encoder_layers, before.encoder_layers, self.kind)
        if own.task != before.task:
            raise RecipeError(
                f"The stage {self.kind} distils {own.task}, but the dataset before it is of {before.task}; "
                "put a stage adapt between them."
            )


def check_divides(n_learners: int, name: str, value: int) -> None:
    """Refuse a number that cannot be shared out evenly to the learners.

    Raises:
        RecipeError: It is no multiple of ``n_learners``.
    """
    if value % n_learners:
        raise RecipeError(
            f"{name}={value} must be a multiple of n_learners={n_learners}, so that all learners get as much."
        )


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others on top; nested mappings are merged, all else is replaced.

    So are mappings of another inner rule's ``kind`` or learners' ``family``: the settings of one are not the
    other's.

    >>> merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    >>> merged({"inner": {"lr": 1, "steps": 10}}, {"inner": {"kind": "ridge"}})
    {'inner': {'kind': 'ridge'}}
    """
    result = dict(one)
    for name, value in other.items():
        below = result.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and _alike(below, value):
            result[name] = merged(below, value)
        else:
            result[name] = value
    return result


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether settings are of one kind; those of an inner rule are SGD's where they do not say."""
    defaults = {"kind": InnerSGD.kind, "family": None}
    return all(other[tag] == one.get(tag, default) for tag, default in defaults.items() if tag in other)
