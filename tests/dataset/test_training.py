"""A network of one's own, trained in place by a dataset, does what a learner drawn with its weights does."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from torch import Tensor, nn

from gym_taskdistill import DistilledDataset, DistilledPolicy, zoo
from gym_taskdistill.dataset.card import Card, space_to_dict
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerRule, InnerSGD, Ridge
from gym_taskdistill.learners import CNN, MLP, LearnerDistribution, Learners
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.policies.trained import train_learners

RULES: dict[str, InnerRule] = {
    "sgd": InnerSGD(lr=0.5, lr_hidden=0.3, steps=2, momentum=0.4),
    "heads": InnerSGD(lr=0.5, lr_hidden=0, steps=2),
    "ridge": Ridge(0.01),
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def dataset(rule: InnerRule, learners: LearnerDistribution | None = None, **fields: Any) -> DistilledDataset:
    env = gym.make("Pendulum-v1")
    card = Card(
        env_id="Pendulum-v1",
        observation_space=space_to_dict(env.observation_space),
        action_space=space_to_dict(env.action_space, bounds=True),
        learners=(learners or MLP(width=16)).spec(),
    )
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 3, generator=generator), torch.randn(8, 1, generator=generator)
    return DistilledDataset(
        x, y, rule, card, log_std=torch.tensor([-1.0]), obs_mean=torch.full((3,), 0.1),
        obs_var=torch.full((3,), 0.5), clip_obs=2.0, **fields,
    )  # fmt: skip


def drawn(learners: LearnerDistribution) -> tuple[Learners, nn.Sequential]:
    """Return a fresh learner, and its own weights as a user would have them."""
    fresh = learners.sample(1, (3,), 1, torch.Generator().manual_seed(3))
    flat: list[nn.Module] = []
    for part in fresh.module(0):
        flat += list(part) if isinstance(part, nn.Sequential) else [part]
    return fresh, nn.Sequential(*flat)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_it_equals_the_learner_of_the_same_weights_in_float64(rule: InnerRule) -> None:
    data = dataset(rule)
    fresh, network = drawn(MLP(width=16, activation="gelu", last_gain=0.5))
    expected, _ = rule.train(
        fresh.replace([p.double() for p in fresh.params]), data.x.double(), data.y.double()
    )
    network = network.double()
    parameters, before = list(network.parameters()), network[-1].bias.detach().clone()
    network.train()
    assert data.train(network) is network and network.training
    for own, same, ours in zip(network.parameters(), parameters, expected.params, strict=True):
        assert own is same and own.requires_grad and own.grad is None
        torch.testing.assert_close(own.detach(), ours[0], atol=1e-12, rtol=1e-10)
    assert not torch.equal(parameters[-1], before)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_policy_acts_with_it_as_it_would_with_the_learner(rule: InnerRule) -> None:
    data = dataset(rule)
    fresh, network = drawn(MLP(width=16, activation="gelu", last_gain=0.5))
    trained = train_learners(fresh, Learners(()), data.x, data.y, rule, log_std_label=data.log_std)
    policy = DistilledPolicy(data, network=data.train(network), seed=0)
    obs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    expected = trained.action_distribution(data.normalize(torch.from_numpy(obs)).unsqueeze(0))
    found = policy.distribution(obs)
    torch.testing.assert_close(found.mode(), expected.mode()[0], atol=1e-5, rtol=1e-4)
    assert policy.trained.log_std is not None and trained.log_std is not None
    torch.testing.assert_close(policy.trained.log_std, trained.log_std)
    torch.testing.assert_close(
        policy.to_torch()(torch.from_numpy(obs)), expected.mode()[0], atol=1e-5, rtol=1e-4
    )
    assert policy.predict(obs[0])[0].shape == (1,)
    mean, _ = evaluate_policy(policy, Monitor(gym.make("Pendulum-v1", max_episode_steps=20)), 1)
    assert np.isfinite(mean)


def test_the_policy_follows_its_network() -> None:
    data = dataset(InnerSGD(lr=0.1))
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    policy = DistilledPolicy(data, network=network)
    obs = np.ones((2, 3), np.float32)
    before = policy.predict(obs, deterministic=True)[0]
    data.train(network)
    after = policy.predict(obs, deterministic=True)[0]
    assert not np.array_equal(before, after)
    with torch.no_grad():
        seen = data.normalize(torch.from_numpy(obs))
        np.testing.assert_allclose(after, network(seen).clamp(-2, 2).numpy(), rtol=1e-5)


class Residual(nn.Module):
    def __init__(self, obs_space: Any, n_outputs: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(obs_space.shape[0], 64), nn.LayerNorm(64))
        self.block = nn.Sequential(nn.LazyLinear(64), nn.GELU(), nn.Linear(64, 64))
        self.head = nn.Linear(64, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(x + self.block(x))


def test_lazy_networks_and_sb3_models_of_them() -> None:
    data = dataset(Ridge(1e-6))
    network = data.train(Residual(gym.spaces.Box(-1, 1, (3,)), 1))
    view = network(data.x).detach()
    torch.testing.assert_close(view, data.y, atol=0.1, rtol=0.1)  # ridge regression fits the rows
    policy = DistilledPolicy(data, network=network)
    model = policy.to_sb3(gym.make("Pendulum-v1"), n_steps=8, batch_size=8)
    obs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    actions = [p.predict(obs, deterministic=True)[0] for p in (policy, model)]
    np.testing.assert_allclose(*actions, atol=1e-5)
    model.learn(8)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [None, Ridge(1e-2)], ids=["its own", "ridge"])
def test_a_residual_network_that_distillation_never_saw_balances(rule: InnerRule | None) -> None:
    data = zoo.load("CartPoleND-v0", "universal-ten-steps", n=2)
    if rule is not None:
        data = data.replace(rule=rule)
    assert evaluate(data, 6, 1, learners=Residual, seed=1).mean > 450


def test_a_network_behind_an_encoder() -> None:
    learners = MLP(width=6)
    fresh = learners.sample(1, (3,), 1, torch.Generator().manual_seed(0), slice(0, 1))
    encoder = {"0.weight": fresh.params[0][0], "0.bias": fresh.params[1][0] + 0.3}
    data = dataset(InnerSGD(lr=0.5), learners, encoder=encoder, encoder_layers=1)
    network = nn.Sequential(nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 1))
    policy = DistilledPolicy(data, network=data.train(network))
    obs = torch.ones(4, 3)
    features = torch.tanh(data.normalize(obs) @ encoder["0.weight"].T + encoder["0.bias"])
    expected = network(features)
    torch.testing.assert_close(policy.distribution(obs.numpy()).mode(), expected)
    torch.testing.assert_close(policy.to_torch()(obs), expected)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), "BatchNorm1d, at 1, whose"),
        (nn.Linear(4, 1), r"fails on inputs of shape \(8, 3\)"),
        (nn.Linear(3, 2), r"to outputs of shape \(8, 1\), but gives \(8, 2\)"),
        (nn.Flatten(), "no parameters"),
        ("net", "must be a torch.nn.Module"),
    ],
)
def test_networks_that_do_not_fit_are_refused_and_left_alone(network: Any, message: str) -> None:
    state = {n: p.clone() for n, p in network.state_dict().items()} if isinstance(network, nn.Module) else {}
    with pytest.raises(TaskDistillError, match=message):
        dataset(InnerSGD()).train(network)
    assert all(torch.equal(p, state[n]) for n, p in getattr(network, "state_dict", dict)().items())


def test_what_a_policy_acts_with_is_one_thing() -> None:
    data, network = dataset(InnerSGD()), nn.Linear(3, 1)
    with pytest.raises(TaskDistillError, match="one network or with learners"):
        DistilledPolicy(data, "alpha_c", network=network)
    with pytest.raises(TaskDistillError, match="acts with one network"):
        DistilledPolicy(data, network=network).ensemble(3)
    with pytest.raises(TaskDistillError, match=r'network\.to\("cpu", torch\.float32\)'):
        DistilledPolicy(data, network=nn.Linear(3, 1).double())


def test_functions_are_learners_of_policies_and_evaluations() -> None:
    data = zoo.load("CartPoleND-v0", n=1)

    def tanh(obs_space: Any, n_outputs: int) -> nn.Module:
        return MLP().sample(1, obs_space.shape, n_outputs, torch.Generator().manual_seed(0)).module(0)

    policy = DistilledPolicy(data, tanh, seed=0)
    assert policy.predict(np.zeros((5, 4), np.float32))[0].shape == (5,)
    result = evaluate(data, 2, 2, learners=tanh, seed=1)
    assert "tanh" in result.learners and result.mean > 300
    assert len(DistilledPolicy(data, Residual).ensemble(2)) == 2


def test_images_go_through_convolutions_of_ones_own() -> None:
    space = gym.spaces.Box(0, 255, (2, 12, 12), np.uint8)
    card = Card(
        env_id="ALE/Pong-v5",
        observation_space=space_to_dict(space),
        action_space={"type": "Discrete", "n": 3},
        learners=CNN(channels=(4,), kernel_sizes=(4,), strides=(2,), hidden=8).spec(),
    )
    data = DistilledDataset(torch.rand(4, 2, 12, 12), torch.randn(4, 3), InnerSGD(lr=0.1), card)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2), nn.GroupNorm(2, 4), nn.SiLU(), nn.Flatten(), nn.Linear(100, 3)
    )
    policy = DistilledPolicy(data, network=data.train(network))
    frames = np.random.default_rng(0).integers(0, 256, (5, 2, 12, 12), np.uint8)
    expected = network(torch.from_numpy(frames).float() / 255).argmax(1)
    assert policy.predict(frames, deterministic=True)[0].tolist() == expected.tolist()
