"""The inner step: Train(λ, X, Y), one differentiable SGD step for M learners at once.

This is the only place that knows how a learner is trained (paper, section 2.1 and Algorithm 1, lines 3 and
12). PPMO calls it with the graph, to differentiate through it; `DistilledPolicy` calls it without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchopt
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.gradients import mse_gradients
from gym_taskdistill.learners import Learners, LearnerStack

#: How long a step is; see `InnerSGD`.
STEP_SIZES = ("constant", "polyak")


@dataclass(frozen=True)
class InnerSGD:
    """How a learner is trained on the rows, but for the rates, which are learned.

    Attributes:
        steps: Number of steps on the same batch, at least 1; 1 is the paper.
        momentum: SGD's momentum, in [0, 1); it matters from the second step on.
        lr_decay: Factor on the learning rate from each step to the next, in (0, 1].
        step_size: ``"constant"`` steps by the learning rate itself, ``"polyak"`` by the learning rate times
            loss / ‖gradient‖², which makes one rate fit networks whose losses are steep and flat.

    Raises:
        TaskDistillError: A value is out of its range; the message names it as PPMO and datasets do.
    """

    steps: int = 1
    momentum: float = 0.0
    lr_decay: float = 1.0
    step_size: str = "constant"

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise TaskDistillError(f"inner_steps must be an integer >= 1, but is {self.steps!r}.")
        if not 0 <= self.momentum < 1:
            raise TaskDistillError(f"inner_momentum must lie in [0, 1), but is {self.momentum!r}.")
        if not 0 < self.lr_decay <= 1:
            raise TaskDistillError(f"inner_lr_decay must lie in (0, 1], but is {self.lr_decay!r}.")
        if self.step_size not in STEP_SIZES:
            raise TaskDistillError(
                f"inner_step_size must be one of {', '.join(STEP_SIZES)}, but is {self.step_size!r}."
            )

    def log_std_pull(self, inner_lr: Tensor | float, n_outputs: int) -> Any:
        """Return which fraction of its label a fresh learner's log standard deviation reaches.

        The loss of the log standard deviation is quadratic and a fresh learner's is 0, so that it ends at
        this factor times the label, whatever the label.

        Args:
            inner_lr: Learning rate, a number or a 0-d tensor.
            n_outputs: Number of action dimensions.

        Returns:
            The factor, a number or a tensor as ``inner_lr`` is; ``2·lr / n_outputs`` for one step.

        >>> InnerSGD().log_std_pull(0.5, 2)
        0.5
        """
        reached: Any = 0.0
        velocity: Any = 0.0
        rate: Any = inner_lr
        for _ in range(self.steps):
            velocity = self.momentum * velocity + (reached - 1.0) * (2.0 / n_outputs)
            reached = reached - rate * velocity
            rate = rate * self.lr_decay
        return reached


#: The paper's inner step.
PAPER = InnerSGD()


def inner_step(
    learners: Learners,
    x: Tensor,
    y: Tensor,
    inner_lr: Tensor | float,
    sgd: InnerSGD = PAPER,
    *,
    lr_hidden: Tensor | float = 1.0,
    log_std: Tensor | None = None,
    log_std_label: Tensor | None = None,
    create_graph: bool = False,
) -> tuple[Learners, Tensor | None]:
    """Train M learners on the synthetic batch by SGD on the mean squared error.

    Each learner minimises ``mean((λ(x) - y)²)`` over the k rows and the outputs, plus, for continuous
    actions, ``mean((log_std - label)²)`` for its state-independent log standard deviation. Each learner
    follows its own loss; TorchOpt's SGD does the step.

    Args:
        learners: M fresh learners with at least one layer; not modified.
        x: Synthetic rows as the learners see them (normalised, encoded), shape ``(k, *in)``.
        y: Soft labels, shape ``(k, n_outputs)``.
        inner_lr: Learning rate, a positive number or 0-d tensor.
        sgd: Number of steps, momentum and so on; the paper's single step by default.
        lr_hidden: Factor on the learning rate in all layers but the last, a number or a 0-d tensor; with the
            number 0 they stay as they are drawn, and many steps cost little more than one.
        log_std: Initial log standard deviations, shape ``(M, n_outputs)``; ``None`` for discrete actions.
        log_std_label: Their label, shape ``(n_outputs,)``; given exactly when ``log_std`` is.
        create_graph: Keep the graph, so that the result can be differentiated with respect to ``x``, ``y``,
            ``inner_lr``, ``lr_hidden`` and ``log_std_label``.

    Returns:
        The trained learners and their log standard deviations (``None`` for discrete actions).
    """
    whole = learners
    rows: Tensor | Sequence[Tensor] = x
    with torch.set_grad_enabled(create_graph):
        if not isinstance(lr_hidden, Tensor) and lr_hidden == 0:
            learners, rows = _heads(whole, x)
        n_network_params = len(learners.params)
        params = learners.params if log_std is None else (*learners.params, log_std)
        rate: Any = inner_lr  # a 0-d tensor is fine
        # TorchOpt counts steps in one tensor per parameter; ours is counted here.
        schedule = rate if sgd.lr_decay == 1 else lambda _: rate
        optimizer = torchopt.sgd(schedule, momentum=sgd.momentum)
        state = optimizer.init(params)
        for _ in range(sgd.steps):
            grads = mse_gradients(
                learners.replace(params[:n_network_params]),
                rows,
                y,
                polyak=sgd.step_size == "polyak",
                hidden=1.0 if learners is not whole else lr_hidden,
            )
            if log_std_label is not None:
                grads = (*grads, (params[-1] - log_std_label) * (2.0 / y.shape[1]))
            # TorchOpt works in place by default, which would cut the meta-gradient.
            updates, state = optimizer.update(grads, state, params=params, inplace=False)
            params = torchopt.apply_updates(params, updates, inplace=False)
            rate = rate * sgd.lr_decay
    trained = iter(params[:n_network_params])
    if learners is not whole:
        kept = [[*stack.params[:-2], next(trained), next(trained)] for stack in whole.stacks]
        trained = iter([p for stack in kept for p in stack])
    return whole.replace(tuple(trained)), None if log_std is None else params[-1]


def _heads(learners: Learners, x: Tensor) -> tuple[Learners, list[Tensor]]:
    """Return the last layers, and what each of them sees of the rows, ``(M_stack, k, features)``."""
    heads, features = [], []
    for stack in learners.stacks:
        hidden = LearnerStack(stack.layers[:-1], stack.params[:-2], stack.size)
        features.append(hidden(x.expand(stack.size, *x.shape)))
        heads.append(LearnerStack(stack.layers[-1:], stack.params[-2:], stack.size))
    return Learners(heads), features
