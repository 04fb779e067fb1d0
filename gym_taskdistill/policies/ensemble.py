"""Ensembles: how several learners act as one, be they trained on one dataset or on several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.dataset.fit import SpacePair
from gym_taskdistill.errors import DatasetError, TaskDistillError, did_you_mean
from gym_taskdistill.learners import LearnerStack
from gym_taskdistill.learners.learners import Stack
from gym_taskdistill.policies.action_distributions import ActionDistribution, Head, head
from gym_taskdistill.policies.trained import TrainedLearners, encode

#: Rules by which members act as one.
ENSEMBLE_RULES = ("mean", "majority", "median")

#: Logit of the action that a majority votes for, over the others': it is taken, whether sampled or not.
CERTAIN = 30.0


class EnsembleRule(nn.Module):
    """Makes one policy of several: maps the outputs of members to those of the ensemble.

    Args:
        action_space: The environment's own space of actions, which says what outputs mean.
        rule: ``"mean"``: the mean of the members' action probabilities, or of their means and log standard
            deviations. ``"majority"``: the action that most members hold for the most likely; where as many
            hold another, the one of the larger mean probability; of several choices each by itself.
            ``"median"``: the median of the members' means and log standard deviations, of each action
            dimension by itself; of an even number of members it is between the two in the middle.

    Raises:
        TaskDistillError: The rule is unknown, or does not fit the space: discrete actions have no median,
            and continuous ones no majority.

    >>> votes = EnsembleRule(spaces.Discrete(2), "majority")
    >>> votes(torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 1.0]])).argmax()
    tensor(1)
    """

    def __init__(self, action_space: spaces.Space[Any], rule: str = "mean") -> None:
        super().__init__()
        if rule not in ENSEMBLE_RULES:
            raise TaskDistillError(
                f"The rule of an ensemble must be one of {', '.join(ENSEMBLE_RULES)}, but is {rule!r}."
                f"{did_you_mean(str(rule), ENSEMBLE_RULES)}"
            )
        self.are_means = isinstance(action_space, spaces.Box)
        self.are_coins = isinstance(action_space, spaces.MultiBinary)
        if rule == ("majority" if self.are_means else "median"):
            kind, other = ("continuous", "median") if self.are_means else ("discrete", "majority")
            raise TaskDistillError(
                f'An ensemble of {kind} actions, {action_space}, cannot act by the rule "{rule}"; use "mean" '
                f'or "{other}".'
            )
        self.rule = rule
        if isinstance(action_space, spaces.MultiDiscrete):
            self.sizes: list[int] = action_space.nvec.flatten().tolist()
        else:
            self.sizes = [spaces.utils.flatdim(action_space)]
        self.head: Head = head(action_space)

    @torch.jit.unused
    def distribution(self, outputs: Tensor, log_std: Tensor | None) -> ActionDistribution:
        """Return the policy of the ensemble.

        Args:
            outputs: The members' outputs, ``(M, ..., n_outputs)``.
            log_std: Their log standard deviations, which broadcast to them; ``None`` for discrete actions.

        Returns:
            A distribution of batch shape ``(...)``.
        """
        return self.head(self(outputs), None if log_std is None else self(log_std))

    def forward(self, outputs: Tensor) -> Tensor:
        """Map the members' outputs, ``(M, ..., n_outputs)``, to the ensemble's, ``(..., n_outputs)``."""
        if self.are_means:
            return _middle(outputs) if self.rule == "median" else outputs.mean(dim=0)
        if self.are_coins:
            return _vote_of_coins(outputs) if self.rule == "majority" else _mean_coins(outputs)
        combined: list[Tensor] = []
        for part in outputs.split(self.sizes, dim=-1):  # TorchScript knows no comprehension here
            combined.append(_vote(part) if self.rule == "majority" else _mean_choice(part))
        return torch.cat(combined, dim=-1)


def _mean_choice(logits: Tensor) -> Tensor:
    """Return logits whose softmax is the mean of softmaxes over the first dimension."""
    return torch.log_softmax(logits, dim=-1).logsumexp(dim=0)


def _mean_coins(logits: Tensor) -> Tensor:
    """Return logits whose sigmoids are the mean of sigmoids over the first dimension."""
    heads, tails = nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
    return heads.logsumexp(dim=0) - tails.logsumexp(dim=0)


# TorchScript takes a number of the module as a default, and not otherwise.
def _vote(logits: Tensor, certain: float = CERTAIN) -> Tensor:
    n_actions = logits.shape[-1]
    votes = nn.functional.one_hot(logits.argmax(dim=-1), n_actions).sum(dim=0)
    # Below a vote, so that it decides between equals alone.
    even = 0.5 * torch.softmax(logits, dim=-1).mean(dim=0)
    winner = (votes + even).argmax(dim=-1)
    return certain * nn.functional.one_hot(winner, n_actions).to(logits.dtype)


def _vote_of_coins(logits: Tensor, certain: float = CERTAIN) -> Tensor:
    votes = (2 * (logits > 0).to(logits.dtype) - 1).sum(dim=0)
    even = logits.sigmoid().mean(dim=0) - 0.5
    return certain * (2 * ((votes + even) > 0).to(logits.dtype) - 1)


def _middle(values: Tensor) -> Tensor:
    # torch's median takes the lower of two in the middle, and ONNX has none.
    n = values.shape[0]
    ordered = values.sort(dim=0).values
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


@dataclass(frozen=True)
class Ensemble:
    """Trained learners of one task that act as one; a single learner is an ensemble of itself.

    Attributes:
        datasets: The datasets that they were trained on, whose views of observations they have.
        trained: The learners of each dataset.
        rule: How they act as one.

    Raises:
        TaskDistillError: The datasets are not of one task.
    """

    datasets: tuple[DistilledDataset, ...]
    trained: tuple[TrainedLearners, ...]
    rule: EnsembleRule

    def __len__(self) -> int:
        """Number of members."""
        return sum(len(trained.learners) for trained in self.trained)

    def distribution(self, obs: Tensor) -> ActionDistribution:
        """Return the policy at raw observations.

        Args:
            obs: ``(b, *obs_shape)``.

        Returns:
            A distribution of batch shape ``(b,)``.
        """
        features = [
            encode(trained.encoder, dataset.normalize(obs).unsqueeze(0))
            for dataset, trained in zip(self.datasets, self.trained, strict=True)
        ]
        outputs = []
        for stack, shares in self._stacks:
            seen = [features[i].expand(n, *features[i].shape[1:]) for i, n in shares]
            outputs.append(stack(seen[0] if len(seen) == 1 else torch.cat(seen)))
        # No rule knows an order of its members, so that stacks may come in any.
        return self.rule.distribution(torch.cat(outputs), self.log_std)

    @cached_property
    def log_std(self) -> Tensor | None:
        """Log standard deviations of all members, ``(M, 1, n_outputs)``; ``None`` of discrete actions."""
        rows = [t.log_std.expand(len(t.learners), -1) for t in self.trained if t.log_std is not None]
        return torch.cat(rows).unsqueeze(1) if rows else None

    @cached_property
    def _stacks(self) -> list[tuple[Stack, list[tuple[int, int]]]]:
        """Each architecture's members in one stack, with how many of which dataset they are."""
        groups: list[list[tuple[int, Stack]]] = []
        for i, trained in enumerate(self.trained):
            for stack in trained.learners.stacks:
                same = next((group for group in groups if _can_join(group[0][1], stack)), None)
                if same is None:
                    groups.append([(i, stack)])
                else:
                    same.append((i, stack))
        return [(_joined([s for _, s in group]), [(i, s.size) for i, s in group]) for group in groups]

    def member(self, index: int) -> tuple[DistilledDataset, TrainedLearners, int]:
        """Return a member's dataset, the learners that were trained on it, and its number among them.

        Raises:
            IndexError: There is no such member.
        """
        left = index
        for dataset, trained in zip(self.datasets, self.trained, strict=True):
            if 0 <= left < len(trained.learners):
                return dataset, trained, left
            left -= len(trained.learners)
        raise IndexError(f"There is no member {index}: this ensemble has {len(self)}.")


def check_one_task(datasets: Sequence[DistilledDataset]) -> None:
    """Refuse datasets whose learners cannot act in one environment, or together.

    Raises:
        TaskDistillError: There is none, or two of them are of different tasks or on different devices.
    """
    if not datasets or not all(isinstance(one, DistilledDataset) for one in datasets):
        raise TaskDistillError("A policy needs a DistilledDataset, or a list of at least one of them.")
    first = datasets[0]
    for other in datasets[1:]:
        if other.task != first.task or not _fits(first, other.spaces):
            raise TaskDistillError(
                "The members of an ensemble act in one environment, but the datasets are of "
                f"{first.task} and {other.task}, or show other observations of it."
            )
        if other.x.device != first.x.device:
            raise TaskDistillError(
                f"The datasets of an ensemble must be on one device, but are on {first.x.device} and "
                f"{other.x.device}."
            )


def _fits(dataset: DistilledDataset, own: SpacePair) -> bool:
    """Tell whether a dataset's learners act in an environment of these spaces."""
    try:
        dataset.check_env(own)
    except DatasetError:
        return False
    return True


def _can_join(one: Stack, other: Stack) -> bool:
    return (
        isinstance(one, LearnerStack)
        and isinstance(other, LearnerStack)
        and one.layers == other.layers
        and one.shapes is None
        and other.shapes is None
    )


def _joined(stacks: Sequence[Stack]) -> Stack:
    """Put stacks of one architecture into one."""
    first = stacks[0]
    if len(stacks) == 1 or not isinstance(first, LearnerStack):
        return first
    params = tuple(torch.cat(column) for column in zip(*(s.params for s in stacks), strict=True))
    return LearnerStack(first.layers, params, sum(s.size for s in stacks))
