"""How much learners miss of an expert's actions: the loss of imitation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from gym_taskdistill.policies.action_distributions import (
    ActionDistribution,
    Bernoulli,
    Categorical,
    DiagGaussian,
    MultiCategorical,
)


def missed(distribution: ActionDistribution, targets: Tensor, space: spaces.Space[Any]) -> Tensor:
    """Return what learners miss of an expert's actions.

    That is the cross-entropy between its actions and theirs (discrete), or the squared error of their means
    within the box (continuous, see `clipped_error`).

    Args:
        distribution: The learners' actions, of batch shape ``(...)``.
        targets: The expert's logits or means, ``(..., n_outputs)``.
        space: The flat action space.

    Returns:
        A loss for each observation, ``(...)``.
    """
    if isinstance(distribution, Categorical):
        return -(targets.softmax(-1) * distribution.log_probs).sum(-1)
    if isinstance(distribution, MultiCategorical):
        sizes = distribution.sizes
        wanted = torch.cat([part.softmax(-1) for part in targets.split(sizes, dim=-1)], dim=-1)
        return -(wanted * distribution.log_probs).sum(-1)
    if isinstance(distribution, Bernoulli):
        cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
        return cross_entropy(distribution.logits, targets.sigmoid(), reduction="none").sum(-1)
    assert isinstance(distribution, DiagGaussian) and isinstance(space, spaces.Box)
    low, high = (torch.as_tensor(end, device=targets.device) for end in (space.low, space.high))
    return clipped_error(distribution.mean, targets, low, high).square().mean(-1)


def variance_of(space: spaces.Space[Any], targets: np.ndarray) -> float:
    """Return the mean variance of continuous actions within their box; 1 if they are discrete or constant.

    Without it the rows of a task with small actions would have gradients so small that Adam's ε stifles them.
    """
    if not isinstance(space, spaces.Box):
        return 1.0
    clipped = np.clip(targets, space.low, space.high)
    # Rounding gives even actions that are always the same a variance, a meaningless one.
    return 1.0 if (clipped == clipped[0]).all() else float(clipped.var(axis=0).mean())


def clipped_error(means: Tensor, targets: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Compute by how much means miss their targets as far as an env can tell.

    Envs clip actions to their box: wherever both lie beyond the same bound, nothing is missed. Experts that
    PPO trained often mean actions far outside, which would else be most of the error.

    Args:
        means: Means, ``(…, n_actions)``.
        targets: Likewise.
        low: Lower bounds, ``(n_actions,)``.
        high: Upper bounds, ``(n_actions,)``.

    Returns:
        Mean minus clipped target, 0 where both lie beyond the same bound; ``(…, n_actions)``.

    Examples:
        >>> ends = torch.tensor([-1.0]), torch.tensor([1.0])
        >>> clipped_error(torch.tensor([[3.0], [0.5], [-3.0]]), torch.tensor([[2.0], [2.0], [2.0]]), *ends)
        tensor([[ 0.0000],
                [-0.5000],
                [-4.0000]])
    """
    wanted = targets.clamp(low, high)
    same = ((wanted >= high) & (means >= high)) | ((wanted <= low) & (means <= low))
    return (means - wanted).masked_fill(same, 0.0)
