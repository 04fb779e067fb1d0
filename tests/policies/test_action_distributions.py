"""Action distributions against torch.distributions, and their sampling against themselves."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import make_proba_distribution
from torch import Tensor
from torch import distributions as reference

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.policies.action_distributions import (
    ActionDistribution,
    Categorical,
    DiagGaussian,
    head,
    n_outputs,
)
from gym_taskdistill.policies.ensemble import EnsembleRule

BATCH = (3, 5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def categorical(n: int = 4) -> tuple[Categorical, reference.Categorical]:
    logits = 3 * normal(*BATCH, n)
    return Categorical(logits), reference.Categorical(logits=logits)


def gaussian(n: int = 4) -> tuple[DiagGaussian, reference.Independent]:
    """One log-std for each of 3 learners, shared by its 5 observations."""
    mean, log_std = normal(*BATCH, n), normal(BATCH[0], 1, n, seed=1)
    theirs = reference.Normal(mean, log_std.exp().expand_as(mean))
    return DiagGaussian(mean, log_std), reference.Independent(theirs, 1)


@pytest.mark.parametrize("n", [1, 2, 18])
def test_categorical_equals_torchs(n: int) -> None:
    ours, theirs = categorical(n)
    actions = theirs.sample()
    assert ours.log_prob(actions).shape == BATCH
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), theirs.mode)


@pytest.mark.parametrize("n", [1, 2, 17])
def test_diag_gaussian_equals_torchs(n: int) -> None:
    ours, theirs = gaussian(n)
    actions = 2 * normal(*BATCH, n, seed=2)
    assert ours.log_prob(actions).shape == BATCH
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    assert torch.equal(ours.mode(), theirs.mode)


def test_gradients_equal_torchs() -> None:
    logits = normal(*BATCH, 4).requires_grad_()
    mean = normal(*BATCH, 4).requires_grad_()
    log_std = normal(BATCH[0], 1, 4, seed=1).requires_grad_()
    choices = torch.randint(4, BATCH, generator=generator())
    actions = normal(*BATCH, 4, seed=2)
    pairs = [
        (Categorical(logits), reference.Categorical(logits=logits), choices, [logits]),
        (
            DiagGaussian(mean, log_std),
            reference.Independent(reference.Normal(mean, log_std.exp().expand_as(mean)), 1),
            actions,
            [mean, log_std],
        ),
    ]
    for ours, theirs, taken, parameters in pairs:
        gradients = [
            torch.autograd.grad((d.log_prob(taken).exp() + d.entropy().square()).sum(), parameters)
            for d in (ours, theirs)
        ]
        torch.testing.assert_close(*gradients)


def test_categorical_samples_with_the_right_frequencies() -> None:
    n = 100_000
    logits = torch.tensor([[0.0, 1.0, 2.0, -3.0], [0.0, 0.0, 0.0, -1e4]])
    samples = Categorical(logits.expand(n, 2, 4)).sample(generator())
    assert samples.shape == (n, 2)
    assert samples.dtype == torch.int64
    probabilities = logits.softmax(-1)
    for i in range(2):
        frequencies = torch.bincount(samples[:, i], minlength=4) / n
        sigma = (probabilities[i] * (1 - probabilities[i]) / n).sqrt()
        assert ((frequencies - probabilities[i]).abs() <= 5 * sigma).all()
    # The draws for two observations are independent.
    joint = torch.bincount(4 * samples[:, 0] + samples[:, 1], minlength=16).view(4, 4) / n
    independent = torch.outer(probabilities[0], probabilities[1])
    assert (joint - independent).abs().max() < 5 / math.sqrt(n) / 2


def test_diag_gaussian_samples_with_the_right_moments() -> None:
    n = 100_000
    mean, log_std = torch.tensor([-3.0, 0.0, 5.0]), torch.tensor([-2.0, 0.0, 1.0])
    samples = DiagGaussian(mean.expand(n, 3), log_std).sample(generator())
    z = ((samples - mean) / log_std.exp()).double()
    bound = 5 / math.sqrt(n)
    assert z.mean(0).abs().max() < bound
    assert (z.var(0) - 1).abs().max() < bound * math.sqrt(2)
    assert z.pow(3).mean(0).abs().max() < bound * math.sqrt(15)
    assert (z.pow(4).mean(0) - 3).abs().max() < bound * math.sqrt(96)
    off_diagonal = torch.corrcoef(z.T) - torch.eye(3)
    assert off_diagonal.abs().max() < bound


@pytest.mark.parametrize("distribution", [categorical()[0], gaussian()[0]])
def test_the_generator_is_the_only_source_of_randomness(distribution: ActionDistribution) -> None:
    torch.manual_seed(1)
    first = distribution.sample(generator(7))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(distribution.sample(generator(7)), first)
    assert not torch.equal(distribution.sample(generator(8)), first)
    assert torch.equal(torch.get_rng_state(), state)
    one = generator(7)
    assert torch.equal(distribution.sample(one), first)
    assert not torch.equal(distribution.sample(one), first)


def test_sampling_does_not_change_the_distribution() -> None:
    for ours, theirs in (categorical(), gaussian()):
        actions = ours.sample(generator())
        before = ours.log_prob(actions)
        ours.sample(generator())
        assert torch.equal(ours.log_prob(actions), before)
        torch.testing.assert_close(before, theirs.log_prob(actions))


def test_an_ensemble_averages_probabilities() -> None:
    ours, theirs = categorical()
    average = EnsembleRule(spaces.Discrete(4)).distribution(ours.logits, None)
    torch.testing.assert_close(average.log_probs.exp(), theirs.probs.mean(dim=0))
    assert average.log_prob(torch.zeros(5)).shape == (5,)


def test_an_ensemble_averages_means_and_log_stds() -> None:
    mean, log_std = normal(*BATCH, 2), normal(BATCH[0], 1, 2, seed=1)
    average = EnsembleRule(spaces.Box(-1, 1, (2,))).distribution(mean, log_std)
    torch.testing.assert_close(average.mode(), mean.mean(0))
    torch.testing.assert_close(average.log_std, log_std.mean(0).expand(5, 2))


@pytest.mark.parametrize(
    ("space", "n"),
    [
        (spaces.Discrete(2), 2),
        (spaces.Discrete(18), 18),
        (spaces.Box(-1, 1, (6,)), 6),
        (spaces.Box(-1, 1, (1,), dtype=np.float64), 1),
        (spaces.Discrete(2, start=1), 2),
        (spaces.Box(-1, 1, (2, 3)), 6),
        (spaces.Box(-1, 1, ()), 1),
        (spaces.MultiDiscrete([3, 2]), 5),
        (spaces.MultiBinary(3), 3),
    ],
)
def test_n_outputs(space: gym.Space, n: int) -> None:
    assert n_outputs(space) == n


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 9, (3,), dtype=np.int64),
        spaces.Tuple((spaces.Discrete(2),)),
        spaces.Dict({"a": spaces.Discrete(2)}),
    ],
    ids=str,
)
def test_other_action_spaces_are_refused(space: gym.Space) -> None:
    with pytest.raises(TaskDistillError, match=r"are not supported; wrap the environment"):
        n_outputs(space)


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([3, 2, 4]), spaces.MultiBinary(3)], ids=str)
def test_actions_of_several_choices_are_sb3s(space: gym.Space) -> None:
    logits = normal(*BATCH, n_outputs(space)).mul(2).flatten(0, 1)
    ours = head(space)(logits, None)
    theirs: Any = make_proba_distribution(space).proba_distribution(logits)  # type: ignore[call-arg]
    actions = ours.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.log_prob(actions), theirs.log_prob(actions.double()))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(ours.mode(), theirs.mode().long())


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(2)], ids=str)
def test_samples_of_several_choices_are_as_frequent_as_they_are_likely(space: gym.Space) -> None:
    distribution = head(space)(normal(1, n_outputs(space)).expand(40_000, -1), None)
    sampled = distribution.sample(torch.Generator().manual_seed(0))
    for action in torch.unique(sampled, dim=0):
        likely = distribution.log_prob(action.expand_as(sampled))[0].exp()
        assert (sampled == action).all(dim=1).float().mean() == pytest.approx(float(likely), abs=0.01)


def test_an_ensemble_averages_the_probabilities_of_each_choice() -> None:
    logits = normal(4, 7, 5)
    average = EnsembleRule(spaces.MultiDiscrete([3, 2])).distribution(logits, None)
    for part, own in zip(average.parts, logits.split((3, 2), dim=-1), strict=True):
        torch.testing.assert_close(part.log_probs.exp(), own.softmax(-1).mean(0))
    coins = EnsembleRule(spaces.MultiBinary(5)).distribution(logits, None)
    torch.testing.assert_close(coins.logits.sigmoid(), logits.sigmoid().mean(0))
