"""The settings of stages that learn a dataset by the outer loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from gym_taskdistill.dataset.spaces import n_rows
from gym_taskdistill.distill.outer import OuterLoop
from gym_taskdistill.inner.rules import InnerSGD, inner_rule
from gym_taskdistill.learners import learner_distribution
from gym_taskdistill.recipes.settings import (
    InnerSetting,
    LearnersSetting,
    NonNegative,
    Positive,
    Rate,
    Size,
    schedule,
)
from gym_taskdistill.recipes.stages.stage import Promise, RecipeError, Stage, refuse_other
from gym_taskdistill.schema import Schema
from gym_taskdistill.tasks import Task

#: Learned things with a learning rate of their own.
RateName = Literal["inner_lr", "log_std", "obs_scale", "obs_shift", "encoder"]

#: Settings that are learning rates or other numbers that may follow a schedule.
RATES = ("learning_rate", "critic_learning_rate", "clip_range")


class StartSettings(Schema):
    """Where the learned things start; see `gym_taskdistill.distill.outer.Start`."""

    error = RecipeError

    x_std: Positive = 1.0
    y_std: Positive = 1.0
    log_std: Annotated[float, Field(ge=-20, le=2)] = 0.0
    obs_scale: Positive | None = None
    obs_shift: Annotated[float, Field(ge=-100, le=100)] | None = None


class OuterStage(Stage):
    """A stage that learns by the outer loop: PPMO and imitation share these settings.

    Names and meanings are those of `PPMO`'s arguments.
    """

    learners: LearnersSetting = "alpha_c"
    k: Size | Literal["k_min"] = "k_min"
    n_learners: Size = 4
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

    def arguments(self, algorithm: Callable[..., object], task: Task) -> dict[str, Any]:
        """Return the settings that `PPMO` or `Imitation` takes as arguments of the same names, built."""
        taken = inspect.signature(algorithm).parameters
        given = {name: getattr(self, name) for name in type(self).model_fields if name in taken}
        promise = self.promise(task)
        return {
            **given,
            **{name: schedule(given[name]) for name in RATES if name in given},
            "learning_rates": {name: schedule(rate) for name, rate in self.learning_rates.items()},
            "learners": promise.learners,
            "k": promise.k,
            "encoder_layers": promise.encoder_layers,
            "start": self.start.to_dict(),
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
        shape = task.flat_observation_space.shape
        k = n_rows(self.k, task.flat_action_space)
        learners, n_layers = learner_distribution(self.learners), self.n_encoder_layers(task)
        learners.check(shape)
        rule = inner_rule(self.inner)
        if not isinstance(rule, InnerSGD):  # which trains whatever there is
            rule.check(learners.sample(1, shape, 2, torch.Generator()))
        learners.check_encoder(n_layers, shape)
        return Promise(k, learners, n_layers, task)

    def check_start(self, own: Promise, before: Promise) -> None:
        """Refuse to start from a dataset of other rows or learners than one's own.

        Raises:
            RecipeError: It says in what they differ.
        """
        refuse_other("k", own.k, before.k, self.kind)
        refuse_other("learners", str(own.learners), str(before.learners), self.kind)
        if own.encoder_layers > before.encoder_layers:
            refuse_other("encoder_layers", own.encoder_layers, before.encoder_layers, self.kind)
        if own.task != before.task:
            raise RecipeError(
                f"The stage {self.kind} distils {own.task}, but the dataset before it is of {before.task}; "
                "put a stage adapt between them."
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
