"""The inner rule Ridge: a learner's last layer in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rule import RATE, InnerRule, Range
from gym_taskdistill.learners import Learners
from gym_taskdistill.learners.learners import Stack


@dataclass(frozen=True)
class Ridge(InnerRule):
    """Ridge regression of the last layer on the rows' features: one Newton step, in closed form.

    As in KIP (Nguyen et al. 2021) and FRePo (Zhou et al. 2022), the last layer becomes the minimum of
    ``‖ΦW + b - Y‖² + ρ‖W‖²``, where the rows of Φ are what it sees of the k rows and b is its bias, if it has
    one. ``ρ = λ ‖Φ - mean Φ‖² / k`` is relative to how far features vary, so that one λ fits learners of all
    widths, and of all biases in the layers before. The loss is quadratic, so that one Newton step reaches the
    minimum from any fresh last layer. All other layers stay as they are drawn. For learners that end in a
    linear layer.

    Attributes:
        regularization: λ, from 1e-12 to 1e12; a number, or a 0-d tensor where it is learned. Small values
            fit the labels, large ones pull the outputs to 0.

    Raises:
        TaskDistillError: A value is of the wrong type or out of its range.
    """

    kind: ClassVar[str] = "ridge"
    rate: ClassVar[str] = "regularization"
    learnable: ClassVar[tuple[str, ...]] = ("regularization",)
    ranges: ClassVar[dict[str, Range]] = {"regularization": RATE}

    regularization: Tensor | float = 1e-3

    def check(self, learners: Learners) -> None:
        """Refuse learners that do not end in a linear layer; see the base class."""
        for stack in learners.stacks:
            if stack.params:
                stack.check_linear_head()

    @property
    def steps(self) -> int:
        """1, Newton's."""
        return 1

    def log_std_pull(self, n_outputs: int) -> float:
        """Return 1: a Newton step reaches the label of the log standard deviation itself."""
        return 1.0

    def _train(
        self, fresh: Learners, x: Tensor, y: Tensor, log_std: Tensor | None, log_std_label: Tensor | None
    ) -> tuple[Learners, Tensor | None]:
        """Solve for every learner's last layer."""
        trained = [p for stack in fresh.stacks for p in self._solved(stack, x, y)]
        if log_std is not None and log_std_label is not None:
            log_std = log_std_label.expand_as(log_std)
        return fresh.replace(trained), log_std

    def _solved(self, stack: Stack, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Return a stack's parameters, its last layer's replaced."""
        features = stack.features(x.expand(stack.size, *x.shape))
        hidden, head = stack.params[: -stack.n_head], stack.params[-stack.n_head :]
        weights, bias = _ridge(features, y, self.regularization, has_bias=len(head) == 2)
        return (*hidden, weights.mT.to(y.dtype), *(b.to(y.dtype) for b in bias))


def _ridge(
    phi: Tensor, y: Tensor, regularization: Tensor | float, *, has_bias: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the minimum of ``‖ΦW + b - Y‖² + ρ‖W‖²`` for each Φ of ``(M, k, f)``.

    In float64, since Gram matrices square the condition number, and by the smaller of the two of them. The
    bias is not drawn to 0, so that at the minimum it maps the mean of the features to the mean of the labels.

    Returns:
        W of shape ``(M, f, n_outputs)``, and b of ``(M, n_outputs)`` in a tuple that is empty without a bias.
    """
    if not bool(torch.isfinite(phi).all()):
        raise TaskDistillError("The last layer cannot be solved for: what it sees of the rows is not finite.")
    phi, y = phi.double(), y.double().expand(len(phi), *y.shape)
    if not has_bias:
        return _solved(phi, y, regularization), ()
    phi_mean, y_mean = phi.mean(dim=1, keepdim=True), y.mean(dim=1, keepdim=True)
    weights = _solved(phi - phi_mean, y - y_mean, regularization)
    return weights, ((y_mean - phi_mean @ weights).squeeze(1),)


def _solved(phi: Tensor, y: Tensor, regularization: Tensor | float) -> Tensor:
    """Return the minimum of ``‖ΦW - Y‖² + ρ‖W‖²`` for each Φ, shape ``(M, f, n_outputs)``."""
    k, n_features = phi.shape[-2:]
    # Far below any useful λ; a λ of almost 0 would leave a matrix that has no inverse.
    rho = (regularization + 1e-9) * phi.square().sum(dim=(1, 2)) / k + torch.finfo(torch.float32).tiny
    few_rows = k <= n_features
    gram = phi @ phi.mT if few_rows else phi.mT @ phi
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram + rho.view(-1, 1, 1) * eye)
    if few_rows:
        return phi.mT @ torch.cholesky_solve(y, factor)
    return torch.cholesky_solve(phi.mT @ y, factor)
