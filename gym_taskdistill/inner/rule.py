"""What every inner rule has: settings that are checked, described and partly learned, and Train(λ, X, Y)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.learners import Learners
from gym_taskdistill.schema import shown

#: A range in words, and whether a number lies in it.
Range = tuple[str, Callable[[float], bool]]

#: Bounds of the rates: beyond them no learner of float32 numbers learns anything.
MIN_RATE, MAX_RATE = 1e-12, 1e12

#: The range of a rate, which float32 must tell from 0.
RATE: Range = (f"from {MIN_RATE:g} to {MAX_RATE:g}", lambda rate: MIN_RATE <= rate <= MAX_RATE)


@dataclass(frozen=True)
class InnerRule(ABC):
    """How a learner is trained on the rows; a frozen dataclass of numbers and names.

    Attributes:
        kind: The rule's name in recipes and files.
        rate: The setting, above 0, that the outer loop always learns, as its logarithm.
        learnable: All settings that the outer loop may learn; there they are 0-d tensors.
        ranges: The range of each number.
    """

    kind: ClassVar[str]
    rate: ClassVar[str]
    learnable: ClassVar[tuple[str, ...]]
    ranges: ClassVar[dict[str, Range]]

    def __post_init__(self) -> None:
        for name, (described, fits) in self.ranges.items():
            value = getattr(self, name)
            if isinstance(value, Tensor) and name in self.learnable:
                continue  # learned, as its logarithm; to look would wait for the device
            if not _is_number(value) or not fits(value):
                raise TaskDistillError(
                    f"The inner rule's {name} must be a number {described}, but is {shown(value)}."
                )
            object.__setattr__(self, name, float(value))

    def __str__(self) -> str:
        """Return the rule in a few words: the rate, and what is not the default."""
        default, rule = type(self)(), self.detached()
        parts = [f"{self.rate}={getattr(rule, self.rate):.4g}"]
        for f in fields(self):
            value = getattr(rule, f.name)
            if f.name != self.rate and value != getattr(default, f.name):
                parts.append(f"{f.name}={value if isinstance(value, str) else f'{value:g}'}")
        return f"{self.kind}({', '.join(parts)})"

    def detached(self) -> Self:
        """Return the rule with numbers in the place of learned tensors."""
        values = {name: getattr(self, name) for name in self.learnable}
        return replace(
            self, **{name: float(v.item()) if isinstance(v, Tensor) else v for name, v in values.items()}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as plain data, its kind first."""
        rule = self.detached()
        return {"kind": self.kind, **{f.name: getattr(rule, f.name) for f in fields(rule)}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make the rule of `to_dict`'s data; what is missing is the default.

        Raises:
            TaskDistillError: A setting is unknown, of the wrong type or out of its range.
        """
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known and name != "kind":
                raise TaskDistillError(
                    f'The inner rule "{cls.kind}" has no setting "{name}"; it has {", ".join(known)}.'
                    f"{did_you_mean(str(name), known)}"
                )
        return cls(**{name: value for name, value in data.items() if name != "kind"})

    def check(self, learners: Learners) -> None:  # noqa: B027  (most rules train whatever there is)
        """Refuse learners that the rule cannot train.

        Raises:
            TaskDistillError: It says what they lack.
        """

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many steps a learner takes."""

    @abstractmethod
    def log_std_pull(self, n_outputs: int) -> Any:
        """Return which fraction of its label a fresh learner's log standard deviation reaches.

        A fresh learner's is 0, so that it ends at this factor times the label, whatever the label.

        Args:
            n_outputs: Number of action dimensions.

        Returns:
            The factor, a number or a tensor as the learned settings are.
        """

    def train(
        self,
        fresh: Learners,
        x: Tensor,
        y: Tensor,
        *,
        log_std: Tensor | None = None,
        log_std_label: Tensor | None = None,
        create_graph: bool = False,
    ) -> tuple[Learners, Tensor | None]:
        """Train M learners on the synthetic batch, each on its own.

        Args:
            fresh: M fresh learners with at least one layer; not modified.
            x: Synthetic rows as the learners see them (normalised, encoded), shape ``(k, *in)``.
            y: Soft labels, shape ``(k, n_outputs)``.
            log_std: Initial log standard deviations, shape ``(M, n_outputs)``; ``None`` for discrete actions.
            log_std_label: Their label, shape ``(n_outputs,)``; given exactly when ``log_std`` is.
            create_graph: Keep the graph, so that the result can be differentiated with respect to ``x``,
                ``y``, ``log_std_label`` and the rule's own tensors.

        Returns:
            The trained learners and their log standard deviations (``None`` for discrete actions).

        Raises:
            TaskDistillError: The rule cannot train such learners; see `check`.
        """
        with torch.set_grad_enabled(create_graph):
            return self._train(fresh, x, y, log_std, log_std_label)

    @abstractmethod
    def _train(
        self, fresh: Learners, x: Tensor, y: Tensor, log_std: Tensor | None, log_std_label: Tensor | None
    ) -> tuple[Learners, Tensor | None]:
        """Train the learners, with a graph where gradients are enabled; see `train`."""


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | Tensor):
        return False
    try:
        return not isinstance(value, str) and math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False
