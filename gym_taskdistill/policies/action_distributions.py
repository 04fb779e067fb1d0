"""Action distributions over stacked logits, sampled from an explicit generator.

SB3's and torch's own distributions draw from the global generator; one `seed` argument could then not make
a run reproducible beside an evaluation that draws numbers too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from gym_taskdistill.dataset.spaces import n_logits, space_to_dict
from gym_taskdistill.tasks.spaces import flat_action_space


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


class MultiCategorical(ActionDistribution):
    """Independent softmaxes, for actions of several choices each.

    Args:
        logits: Those of all choices side by side, ``(..., sum(sizes))``; actions are integers
            ``(..., len(sizes))``.
        sizes: Number of choices of each.
    """

    def __init__(self, logits: Tensor, sizes: tuple[int, ...]) -> None:
        self.logits, self.sizes = logits, sizes
        self.parts = [Categorical(part) for part in logits.split(sizes, dim=-1)]

    @property
    def log_probs(self) -> Tensor:
        """Log-probabilities of all choices side by side."""
        return torch.cat([part.log_probs for part in self.parts], dim=-1)

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw each choice by itself."""
        return torch.stack([part.sample(generator) for part in self.parts], dim=-1)

    def mode(self) -> Tensor:
        """Return the choices of the largest logits."""
        return torch.stack([part.mode() for part in self.parts], dim=-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability, summed over the choices."""
        chosen = zip(self.parts, actions.unbind(dim=-1), strict=True)
        return torch.stack([part.log_prob(action) for part, action in chosen]).sum(dim=0)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, summed over the choices."""
        return torch.stack([part.entropy() for part in self.parts]).sum(dim=0)


class Bernoulli(ActionDistribution):
    """Independent coins: action i is 1 with probability sigmoid of its logit; both are ``(..., A)``."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def sample(self, generator: torch.Generator) -> Tensor:
        """Toss every coin."""
        noise = torch.empty_like(self.logits).uniform_(generator=generator)
        return (noise < self.logits.sigmoid()).long()

    def mode(self) -> Tensor:
        """Return 1 where the logit is above 0."""
        return (self.logits > 0).long()

    def log_prob(self, actions: Tensor) -> Tensor:
        """Return the log-probability, summed over the coins."""
        signed = (2 * actions.to(self.logits.dtype) - 1) * self.logits
        return nn.functional.logsigmoid(signed).sum(dim=-1)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, summed over the coins."""
        heads, tails = (nn.functional.logsigmoid(sign * self.logits) for sign in (1, -1))
        return -(heads.exp() * heads + tails.exp() * tails).sum(dim=-1)


#: Makes a distribution of a network's outputs, and of its log standard deviation where it has one.
Head = Callable[[Tensor, Tensor | None], ActionDistribution]


def head(action_space: spaces.Space[Any]) -> Head:
    """Return what makes of a network's outputs a distribution over the actions of a space.

    They are actions of the flat space, see `gym_taskdistill.tasks.spaces.flat_action_space`: `own_actions`
    translates them.

    >>> head(spaces.MultiDiscrete([3, 2]))(torch.zeros(5), None).mode()
    tensor([0, 0])
    """
    if isinstance(action_space, spaces.MultiDiscrete):
        sizes = tuple(action_space.nvec.flatten().tolist())
        return lambda outputs, _: MultiCategorical(outputs, sizes)
    if isinstance(action_space, spaces.MultiBinary):
        return lambda outputs, _: Bernoulli(outputs)
    return by_log_std


def by_log_std(outputs: Tensor, log_std: Tensor | None) -> ActionDistribution:
    """Return normals where there is a log standard deviation, else a softmax."""
    return Categorical(outputs) if log_std is None else DiagGaussian(outputs, log_std)


def n_outputs(action_space: spaces.Space[Any]) -> int:
    """Return how many outputs a learner needs to act in a space: one for each logit or mean.

    Raises:
        TaskDistillError: The space is not supported.

    >>> n_outputs(spaces.MultiDiscrete([3, 2]))
    5
    """
    return n_logits(space_to_dict(flat_action_space(action_space)))
