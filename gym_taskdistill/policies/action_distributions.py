"""Action distributions over stacked logits, sampled from an explicit generator.

SB3's and torch's own distributions draw from the global generator; one `seed` argument could then not make
a run reproducible beside an evaluation that draws numbers too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError


class ActionDistribution(ABC):
    """A distribution over actions for each of a batch ``(...)`` of observations."""

    @abstractmethod
    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one action for each observation."""

    @abstractmethod
    def mode(self) -> Tensor:
        """Return the most likely action of each observation."""

    @abstractmethod
    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability (density) of each action, shape ``(...)``."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Return the entropy in nats of each distribution, shape ``(...)``."""

    @abstractmethod
    def average(self) -> ActionDistribution:
        """Average over the first dimension: the policy of an ensemble."""


class Categorical(ActionDistribution):
    """A softmax over ``logits`` of shape ``(..., A)``; actions are integers ``(...)``."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    @cached_property
    def log_probs(self) -> Tensor:
        """Log-probabilities of all actions, ``(..., A)``; acting does without them."""
        return torch.log_softmax(self.logits, dim=-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw by the Gumbel-max trick with exponentials: argmax p / E, E ~ Exp(1)."""
        noise = torch.empty_like(self.logits).exponential_(generator=generator)
        return (self.logits - noise.log_()).argmax(dim=-1)

    def mode(self) -> Tensor:
        """Return the action of the largest logit."""
        return self.logits.argmax(dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability of integer actions ``(...)``."""
        return self.log_probs.gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, shape ``(...)``."""
        return -(self.log_probs.exp() * self.log_probs).sum(dim=-1)

    def average(self) -> Categorical:
        """Average the action probabilities."""
        return Categorical(self.log_probs.logsumexp(dim=0))


class DiagGaussian(ActionDistribution):
    """Independent normals of means ``(..., A)`` and a ``log_std`` that broadcasts to them."""

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std.expand_as(mean)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw unclipped actions."""
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Tensor:
        """Return the means."""
        return self.mean

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-density of unclipped actions, summed over their dimensions."""
        z = (actions - self.mean) * (-self.log_std).exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Return the differential entropy in nats, summed over the dimensions."""
        return (self.log_std + 0.5 * (1.0 + math.log(2 * math.pi))).sum(dim=-1)

    def average(self) -> DiagGaussian:
        """Average the means and the log standard deviations."""
        return DiagGaussian(self.mean.mean(dim=0), self.log_std.mean(dim=0))


def n_outputs(action_space: spaces.Space) -> int:
    """Return how many outputs a learner needs to act in ``action_space``.

    Raises:
        TaskDistillError: The space is neither `Discrete` (starting at 0) nor a flat float `Box`.
    """
    if isinstance(action_space, spaces.Discrete) and action_space.start == 0:
        return int(action_space.n)
    if (
        isinstance(action_space, spaces.Box)
        and len(action_space.shape) == 1
        and np.issubdtype(action_space.dtype, np.floating)
    ):
        return int(action_space.shape[0])
    raise TaskDistillError(
        f"The action space {action_space} is not supported: use Discrete(n) starting at 0 or a flat Box."
    )
