"""The inner rule Ridge: a learner's last layer in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rule import InnerRule, Range
from gym_taskdistill.learners import Learners
from gym_taskdistill.learners.learners import Stack


@dataclass(frozen=True)
class Ridge(InnerRule):
    """Ridge regression of the last layer on the rows' features: one Newton step, in closed form.

    As in KIP (Nguyen et al. 2021) and FRePo (Zhou et al. 2022), the last layer becomes the minimum of
    ``‖ΦW - Y‖² + ρ‖W‖²``, where the rows of Φ are what it sees of the k rows, with a one for its bias, and
    ``ρ = λ ‖Φ‖² / k``: relative to the features, so that one λ fits learners of all widths. The loss is
    quadratic, so that one Newton step reaches the minimum from any fresh last layer. All other layers stay as
    they are drawn. For learners that end in a linear layer.

    Attributes:
        regularization: λ, above 0; a number, or a 0-d tensor where it is learned. Small values fit the
            labels, large ones pull the outputs to 0.

    Raises:
        TaskDistillError: A value is of the wrong type or out of its range.
    """

    kind: ClassVar[str] = "ridge"
    rate: ClassVar[str] = "regularization"
    learnable: ClassVar[tuple[str, ...]] = ("regularization",)
    ranges: ClassVar[dict[str, Range]] = {"regularization": ("above 0", lambda value: value > 0)}

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
        """Solve for every learner's last layer; see `InnerRule.train`.

        Raises:
            TaskDistillError: The learners do not end in a linear layer.
        """
        with torch.set_grad_enabled(create_graph):
            trained = [p for stack in fresh.stacks for p in self._solved(stack, x, y)]
            if log_std is not None and log_std_label is not None:
                log_std = log_std_label.expand_as(log_std)
        return fresh.replace(trained), log_std

    def _solved(self, stack: Stack, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Return a stack's parameters, its last layer's replaced."""
        features = stack.features(x.expand(stack.size, *x.shape))
        hidden, head = stack.params[: -stack.n_head], stack.params[-stack.n_head :]
        has_bias = len(head) == 2
        if has_bias:
            features = torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)
        weights = _ridge(features, y, self.regularization).to(y.dtype)
        solved = (weights[:, :-1], weights[:, -1]) if has_bias else (weights,)
        return (*hidden, solved[0].mT, *solved[1:])


def _ridge(phi: Tensor, y: Tensor, regularization: Tensor | float) -> Tensor:
    """Return the minimum of ``‖ΦW - Y‖² + ρ‖W‖²`` for each Φ of ``(M, k, f)``, shape ``(M, f, n_outputs)``.

    In float64, since Gram matrices square the condition number, and by the smaller of the two of them.
    """
    if not bool(torch.isfinite(phi).all()):
        raise TaskDistillError("The last layer cannot be solved for: what it sees of the rows is not finite.")
    phi, y = phi.double(), y.double()
    k, n_features = phi.shape[-2:]
    # Far below any useful λ; a λ of almost 0 would leave a matrix that has no inverse.
    rho = (regularization + 1e-9) * phi.square().sum(dim=(1, 2)) / k + torch.finfo(torch.float32).tiny
    few_rows = k <= n_features
    gram = phi @ phi.mT if few_rows else phi.mT @ phi
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram + rho.view(-1, 1, 1) * eye)
    if few_rows:
        return phi.mT @ torch.cholesky_solve(y.expand(len(phi), *y.shape), factor)
    return torch.cholesky_solve(phi.mT @ y, factor)
