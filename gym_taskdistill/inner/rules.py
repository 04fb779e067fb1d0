"""The inner rules: Train(λ, X, Y), differentiable, for M learners at once.

This package is the only place that knows how a learner is trained (paper, section 2.1 and Algorithm 1, lines
3 and 12): by SGD as in the paper, or by `Ridge`. The outer loop trains with the graph, to differentiate
through it; `DistilledPolicy` without. A rule travels whole: the outer loop, the dataset and its file hold the
one object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torchopt
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.gradients import mse_gradients
from gym_taskdistill.inner.ridge import Ridge
from gym_taskdistill.inner.rule import MAX_RATE, RATE, InnerRule, Range
from gym_taskdistill.learners import Learners, LearnerStack
from gym_taskdistill.learners.layers import Linear
from gym_taskdistill.schema import shown

__all__ = ["INNER_RULES", "InnerRule", "InnerSGD", "Ridge", "inner_rule"]

#: How long a step is; see `InnerSGD`.
STEP_SIZES = ("constant", "polyak")

#: So many steps no learner needs; a file that asks for more would only keep its reader busy.
MAX_STEPS = 10_000


@dataclass(frozen=True)
class InnerSGD(InnerRule):
    """Full-batch SGD on the rows; one step is the paper.

    Attributes:
        lr: Learning rate, from 1e-12 to 1e12; a number, or a 0-d tensor where it is learned.
        lr_hidden: Factor on the learning rate in all layers but the last, from 0 to 1e12; a number, or a
            0-d tensor where it is learned. A small one leaves the hidden layers nearly as they are drawn, so
            that large labels can drown what a fresh output layer says and no depth diverges. The number 0
            trains the last layer alone; many steps then cost little more than one.
        steps: Number of steps on the same rows, from 1 to 10,000.
        momentum: SGD's momentum, in [0, 1); it matters from the second step on. With the decay it brings
            networks whose losses are steep and networks whose losses are flat to the labels in the same few
            steps.
        lr_decay: Factor on the learning rate from each step to the next, in (0, 1].
        step_size: ``"constant"`` steps by the learning rate itself, ``"polyak"`` by the learning rate times
            loss / ‖gradient‖², which makes one rate fit networks whose losses are steep and flat.

    Raises:
        TaskDistillError: A value is of the wrong type or out of its range.
    """

    kind: ClassVar[str] = "sgd"
    rate: ClassVar[str] = "lr"
    learnable: ClassVar[tuple[str, ...]] = ("lr", "lr_hidden")
    ranges: ClassVar[dict[str, Range]] = {
        "lr": RATE,
        "lr_hidden": (f"at least 0 and at most {MAX_RATE:g}", lambda value: 0 <= value <= MAX_RATE),
        "momentum": ("in [0, 1)", lambda value: 0 <= value < 1),
        "lr_decay": ("in (0, 1]", lambda value: 0 < value <= 1),
    }

    lr: Tensor | float = 0.02
    lr_hidden: Tensor | float = 1.0
    steps: int = 1
    momentum: float = 0.0
    lr_decay: float = 1.0
    step_size: str = "constant"

    def __post_init__(self) -> None:
        steps: Any = self.steps
        if not isinstance(steps, int | np.integer) or isinstance(steps, bool) or not 1 <= steps <= MAX_STEPS:
            raise TaskDistillError(
                f"The inner rule's steps must be an integer from 1 to {MAX_STEPS}, but is {shown(steps)}."
            )
        object.__setattr__(self, "steps", int(steps))
        super().__post_init__()
        if self.step_size not in STEP_SIZES:
            raise TaskDistillError(
                f"The inner rule's step_size must be one of {', '.join(STEP_SIZES)}, but is "
                f"{self.step_size!r}."
            )

    def log_std_pull(self, n_outputs: int) -> Any:
        """Return ``2·lr / n_outputs`` for one step; see the base class. The loss is quadratic.

        >>> InnerSGD(lr=0.5).log_std_pull(2)
        0.5
        """
        reached: Any = 0.0
        velocity: Any = 0.0
        rate: Any = self.lr
        for _ in range(self.steps):
            velocity = self.momentum * velocity + (reached - 1.0) * (2.0 / n_outputs)
            reached = reached - rate * velocity
            rate = rate * self.lr_decay
        return reached

    def _train(
        self, fresh: Learners, x: Tensor, y: Tensor, log_std: Tensor | None, log_std_label: Tensor | None
    ) -> tuple[Learners, Tensor | None]:
        """Let each learner minimise ``mean((λ(x) - y)²)``, by TorchOpt's SGD, each on its own.

        The mean is over the k rows and the outputs. With continuous actions ``mean((log_std - label)²)`` is
        added, for the log standard deviation, which depends on no state.
        """
        learners = fresh
        rows: Tensor | Sequence[Tensor] = x
        hidden = self.lr_hidden
        heads_only = not isinstance(hidden, Tensor) and hidden == 0
        heads_only &= all(stack.has_linear_head and stack.n_head == 2 for stack in fresh.stacks)
        if heads_only:
            learners, rows = _heads(fresh, x)
            hidden = 1.0
        n_network_params = len(learners.params)
        params = learners.params if log_std is None else (*learners.params, log_std)
        rate: Any = self.lr  # a 0-d tensor is fine
        # TorchOpt counts steps in one tensor per parameter; ours is counted here.
        schedule = rate if self.lr_decay == 1 else lambda _: rate
        optimizer = torchopt.sgd(schedule, momentum=self.momentum)
        state = optimizer.init(params)
        for _ in range(self.steps):
            grads = mse_gradients(
                learners.replace(params[:n_network_params]),
                rows,
                y,
                polyak=self.step_size == "polyak",
                hidden=hidden,
            )
            if log_std_label is not None:
                grads = (*grads, (params[-1] - log_std_label) * (2.0 / y.shape[1]))
            # TorchOpt works in place by default, which would cut the meta-gradient.
            updates, state = optimizer.update(grads, state, params=params, inplace=False)
            params = torchopt.apply_updates(params, updates, inplace=False)
            rate = rate * self.lr_decay
        trained = params[:n_network_params]
        if heads_only:
            trained = _with_heads(fresh, trained)
        return fresh.replace(trained), None if log_std is None else params[-1]


#: The inner rules by their kind; another one is registered by its entry here.
INNER_RULES: dict[str, type[InnerRule]] = {InnerSGD.kind: InnerSGD, Ridge.kind: Ridge}


def inner_rule(spec: InnerRule | Mapping[str, Any]) -> InnerRule:
    """Return an inner rule from itself or from plain data.

    Args:
        spec: A rule, or a mapping of its settings with their ``kind``, by default ``"sgd"``.

    Raises:
        TaskDistillError: The kind or a setting is unknown, of the wrong type or out of its range.

    >>> inner_rule({"lr": 1, "steps": 10}) == InnerSGD(lr=1.0, steps=10)
    True
    >>> print(inner_rule({"kind": "ridge"}))
    ridge(regularization=0.001)
    """
    if isinstance(spec, InnerRule):
        return spec
    if not isinstance(spec, Mapping):
        raise TaskDistillError(f"An inner rule must be a mapping of its settings, but is {spec!r}.")
    kind = spec.get("kind", InnerSGD.kind)
    if not isinstance(kind, str) or kind not in INNER_RULES:
        raise TaskDistillError(f"There is no inner rule {kind!r}; there is {', '.join(INNER_RULES)}.")
    return INNER_RULES[kind].from_dict(spec)


def _heads(learners: Learners, x: Tensor) -> tuple[Learners, list[Tensor]]:
    """Return the last layers, and what each of them sees of the rows, ``(M_stack, k, features)``."""
    heads, features = [], []
    for stack in learners.stacks:
        seen = stack.features(x.expand(stack.size, *x.shape))
        weight, bias = stack.params[-2:]
        features.append(seen)
        heads.append(LearnerStack((Linear(seen.shape[-1], weight.shape[1]),), (weight, bias), stack.size))
    return Learners(heads), features


def _with_heads(learners: Learners, heads: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return all parameters of learners, the last layers' in the place of their own."""
    trained = iter(heads)
    kept = [(*stack.params[:-2], next(trained), next(trained)) for stack in learners.stacks]
    return tuple(p for params in kept for p in params)
