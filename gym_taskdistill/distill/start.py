"""Where the learned things of an outer loop start, and how fast each of them learns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from stable_baselines3.common.type_aliases import Schedule

from gym_taskdistill.errors import TaskDistillError, did_you_mean

#: Learned things that may have a learning rate of their own, beside the rows and labels.
OWN_RATES = ("inner_lr", "log_std", "obs_scale", "obs_shift", "encoder")

#: A learning rate by the name of what learns: a number or a schedule; ``None`` follows ``learning_rate``.
LearningRates = Mapping[str, "float | Schedule | None"]


@dataclass(frozen=True)
class Start:
    """Where the learned things start.

    Attributes:
        x_std: Standard deviation of the rows, which are normal, at least 0; the paper's is 1. Before the
            factor of ``obs_scale``.
        y_std: Standard deviation of the labels, which are normal, at least 0; the paper's is 1.
        log_std: Log standard deviation of trained learners (continuous actions).
        obs_scale: The factor on each dimension of what learners see, observations and rows alike (the critic
            sees observations as they are), above 0; ``None`` for none, as in the paper. Where it is small,
            activations are nearly linear and networks of one family agree on what they learned.
        obs_shift: What is added to each dimension then; ``None`` for nothing, as in the paper. Fresh tanh
            networks, whose biases are 0, are odd functions, and ReLUs have a kink at 0, at any scale. With a
            shift they are neither, and where ``obs_scale`` is small beside it, all are nearly linear.

    Raises:
        TaskDistillError: A value is no number or out of its range.
    """

    x_std: float = 1.0
    y_std: float = 1.0
    log_std: float = 0.0
    obs_scale: float | None = None
    obs_shift: float | None = None

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.generic):
                value = value.item()
                object.__setattr__(self, f.name, value)
            if value is None and f.default is None:
                continue
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value):
                raise TaskDistillError(f"start.{f.name} must be a number, but is {value!r}.")
            if f.name.endswith("_std") and f.name != "log_std" and value < 0:
                raise TaskDistillError(f"start.{f.name} must be >= 0, but is {value!r}.")
            if f.name == "obs_scale" and value <= 0:
                raise TaskDistillError(f"start.obs_scale must be > 0 or None, but is {value!r}.")

    @classmethod
    def of(cls, spec: Start | Mapping[str, Any]) -> Start:
        """Return a start from itself or from a mapping of its settings.

        Raises:
            TaskDistillError: A setting is unknown, no number or out of its range.
        """
        if isinstance(spec, Start):
            return spec
        known = [f.name for f in fields(cls)]
        _refuse_unknown(spec, known, "start")
        return cls(**spec)


def checked_rates(rates: LearningRates | None) -> dict[str, float | Schedule | None]:
    """Return the learning rates of `OWN_RATES`, ``None`` where none was given.

    Raises:
        TaskDistillError: A name is unknown.
    """
    _refuse_unknown(rates or {}, OWN_RATES, "learning_rates")
    given = {name: (rates or {}).get(name) for name in OWN_RATES}
    return {name: rate.item() if isinstance(rate, np.generic) else rate for name, rate in given.items()}


def _refuse_unknown(given: Any, known: Any, where: str) -> None:
    if not isinstance(given, Mapping):
        raise TaskDistillError(f"{where} must be a mapping, but is {given!r}.")
    for name in given:
        if name not in known:
            raise TaskDistillError(
                f'{where} has no "{name}"; it has {", ".join(known)}.{did_you_mean(str(name), known)}'
            )


#: Rows and labels from the standard normal.
NORMAL = Start()
