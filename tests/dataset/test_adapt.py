"""A dataset for another version or width does what the one before did."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from gym_taskdistill import zoo
from gym_taskdistill.dataset import adapt as adapting
from gym_taskdistill.dataset.adapt import adapt, check_adapt, roll_back
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import DatasetError
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.learners import ALPHA_C
from gym_taskdistill.policies.trained import train_fresh_learners
from gym_taskdistill.tasks import Task


@pytest.mark.parametrize(("old_id", "new_id"), adapting.COLUMNS)
def test_columns_are_what_both_versions_show(old_id: str, new_id: str) -> None:
    columns = adapting.COLUMNS[old_id, new_id]
    kept = [i for i, column in enumerate(columns) if column is not None]
    old, new = gym.make(old_id), gym.make(new_id)
    assert new.observation_space.shape == (len(columns),)
    observations = [old.reset(seed=3)[0], new.reset(seed=3)[0]]
    for _ in range(10):
        before, after = observations
        np.testing.assert_array_equal(before[[columns[i] for i in kept]], after[kept])
        action = new.action_space.sample()
        observations = [old.step(action)[0], new.step(action)[0]]


def means(dataset: DistilledDataset, obs: torch.Tensor, n_learners: int) -> torch.Tensor:
    """Return the action means of fresh learners, ``(M, b, n_outputs)``."""
    trained = train_fresh_learners(dataset, n_learners, torch.Generator().manual_seed(0))
    return trained.action_distribution(obs.expand(n_learners, *obs.shape)).mean


def test_wide_learners_do_what_narrow_ones_do_on_average() -> None:
    generator = torch.Generator().manual_seed(0)
    card = zoo.load("Humanoid-v4").card.replace(learners={"family": "mlp", "width": 64})
    narrow = DistilledDataset(  # small enough for activations to be linear
        x=0.05 * torch.randn(8, 376, generator=generator),
        y=torch.randn(8, 17, generator=generator),
        rule=InnerSGD(lr=30.0),  # what a fresh last layer says would else count
        log_std=torch.zeros(17),
        card=card,
    )
    wide = adapt(narrow, Task("Humanoid-v4"), 512)
    obs = 0.05 * torch.randn(32, 376, generator=generator)
    wanted, got = means(narrow, obs, 128), means(wide, obs, 4)
    spread = wanted.std(0).mean()
    assert got.std(0).mean() < 0.1 * spread  # wide ones agree
    error = (got.mean(0) - wanted.mean(0)).square().mean().sqrt()
    assert error < 2 * spread / 128**0.5


def test_new_columns_change_nothing_while_they_are_zero() -> None:
    old = zoo.load("Ant-v4")
    new = adapt(old, Task("Ant-v5"), 128)
    assert new.card.env_id == "Ant-v5" and not new.card.scores
    obs = new.obs_scale[:27] * torch.randn(16, 27, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([obs, torch.zeros(16, 78)], dim=1)
    wanted, got = means(old, obs, 64).mean(0), means(new, padded, 64).mean(0)
    assert (got - wanted).square().mean() < 0.05 * wanted.var(0).mean()  # more units saturate less


def test_the_exploration_of_agents_can_be_set() -> None:
    dataset = zoo.load("InvertedDoublePendulum-v4")
    quiet = adapt(dataset, Task("InvertedDoublePendulum-v4"), log_std=-2.0)
    trained = train_fresh_learners(quiet, 3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(trained.log_std, torch.full((3, 1), -2.0))
    assert torch.equal(quiet.x, dataset.x)


@pytest.mark.parametrize("labels", [0.0, -1.0])
def test_the_exploration_of_a_whole_network_can_be_set(labels: float) -> None:
    card = zoo.load("InvertedPendulum-v4").card.replace(learners={"family": "mlp", "depth": 0})
    direct = DistilledDataset(  # what a stage ppo makes: the encoder holds all layers, and nothing is trained
        x=torch.zeros(1, 4),
        y=torch.zeros(1, 1),
        rule=InnerSGD(lr=0.02),
        log_std=torch.tensor([labels]),
        encoder={"0.weight": torch.ones(1, 4), "0.bias": torch.zeros(1)},
        encoder_layers=1,
        card=card,
    )
    quiet = adapt(direct, Task("InvertedPendulum-v4"), log_std=-2.0)
    trained = train_fresh_learners(quiet, 1, torch.Generator().manual_seed(1))
    torch.testing.assert_close(trained.log_std, torch.full((1, 1), -2.0))


def test_the_hidden_layers_rate_can_be_set() -> None:
    dataset = zoo.load("Hopper-v4")
    assert adapt(dataset, Task("Hopper-v4"), lr_hidden=0.0).rule.lr_hidden == 0


def test_an_encoder_is_kept_or_rolled_back() -> None:
    entry = zoo.load("PongNoFrameskip-v4/level-3")
    start = adapt(entry, Task(entry.card.env_id))
    assert all(torch.equal(start.encoder[name], entry.encoder[name]) for name in entry.encoder)
    assert start.card.observation_space == entry.card.observation_space
    assert start.card.learners == entry.card.learners
    shorter = roll_back(entry)
    assert shorter.encoder_layers == 2
    assert set(shorter.encoder) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert torch.equal(shorter.x, entry.x)
    with pytest.raises(DatasetError, match="no encoder"):
        roll_back(zoo.load("Hopper-v4"))


def test_what_cannot_be_adapted_is_refused() -> None:
    with pytest.raises(DatasetError, match="cannot be adapted to Hopper-v4"):
        check_adapt(ALPHA_C, Task("Ant-v4"), Task("Hopper-v4"))
    with pytest.raises(DatasetError, match="no standard deviation"):
        adapt(zoo.load("CartPoleND-v0", n=2), Task("CartPoleND-v0", {"n": 2}), log_std=-1.0)
