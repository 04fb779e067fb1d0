"""`DistilledPolicy` behaves like an SB3 policy and acts as its exported network does."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from gym_taskdistill import DistilledDataset, DistilledPolicy, zoo
from gym_taskdistill.dataset.card import Card, space_to_dict
from gym_taskdistill.errors import DatasetError, TaskDistillError, ZooError
from gym_taskdistill.inner.rules import InnerSGD


def pendulum_dataset() -> DistilledDataset:
    env = gym.make("Pendulum-v1")
    card = Card(
        env_id="Pendulum-v1",
        observation_space=space_to_dict(env.observation_space),
        action_space=space_to_dict(env.action_space, bounds=True),
        learners={"family": "mlp"},
    )
    generator = torch.Generator().manual_seed(0)
    return DistilledDataset(
        x=torch.randn(8, 3, generator=generator),
        y=20 * torch.randn(8, 1, generator=generator),
        rule=InnerSGD(lr=0.5),
        log_std=torch.tensor([-1.0]),
        obs_mean=torch.tensor([0.1, 0.2, 0.3]),
        obs_var=torch.tensor([0.5, 0.5, 4.0]),
        clip_obs=2.0,
        obs_scale=torch.tensor([1.0, 0.5, 2.0]),
        obs_shift=torch.tensor([0.0, 0.5, -0.5]),
        card=card,
    )


@pytest.fixture(scope="module")
def cartpole() -> DistilledDataset:
    return zoo.load("CartPoleND-v0", n=2)


@pytest.mark.slow
def test_a_fresh_agent_from_the_zoo_balances(cartpole: DistilledDataset) -> None:
    policy = DistilledPolicy(cartpole, seed=0)
    env = Monitor(gym.make("CartPoleND-v0", n=2))
    mean, _ = evaluate_policy(policy, env, n_eval_episodes=5, deterministic=False)
    assert mean > 400


def test_sb3_evaluates_it_on_vector_envs(cartpole: DistilledDataset) -> None:
    venv = DummyVecEnv([lambda: Monitor(gym.make("CartPoleND-v0", n=2)) for _ in range(3)])
    mean, _ = evaluate_policy(DistilledPolicy(cartpole, seed=1), venv, n_eval_episodes=3)
    assert mean > 400


def test_single_and_batched_observations_agree(cartpole: DistilledDataset) -> None:
    policy = DistilledPolicy(cartpole, seed=0)
    batch = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    actions, state = policy.predict(batch, deterministic=True)
    assert state is None
    assert actions.shape == (16,)
    assert [int(policy.predict(obs, deterministic=True)[0]) for obs in batch] == actions.tolist()
    assert gym.make("CartPoleND-v0", n=2).action_space.contains(policy.predict(batch[0])[0])


def test_the_seed_decides_network_and_actions(cartpole: DistilledDataset) -> None:
    batch = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    first, again, other = (DistilledPolicy(cartpole, seed=s) for s in (3, 3, 4))
    for _ in range(2):
        np.testing.assert_array_equal(first.predict(batch)[0], again.predict(batch)[0])
    inputs = torch.from_numpy(batch)
    assert not torch.equal(first.to_torch()(inputs), other.to_torch()(inputs))


@pytest.mark.parametrize("make", [pendulum_dataset, lambda: zoo.load("CartPoleND-v0", n=2)])
def test_the_exported_network_acts_alike(make: object) -> None:
    dataset = make()  # type: ignore[operator]
    policy = DistilledPolicy(dataset, seed=0)
    obs = 3 * np.random.default_rng(0).normal(size=(10, *dataset.obs_shape)).astype(np.float32)
    with torch.no_grad():
        outputs = policy.to_torch()(torch.from_numpy(obs))
    actions = policy.predict(obs, deterministic=True)[0]
    if dataset.log_std is None:
        np.testing.assert_array_equal(outputs.argmax(dim=1).numpy(), actions)
    else:
        np.testing.assert_allclose(outputs.clamp(-2, 2).numpy(), actions, rtol=1e-5, atol=1e-6)


def test_continuous_actions_stay_in_the_box() -> None:
    policy = DistilledPolicy(pendulum_dataset(), seed=0)
    obs = np.random.default_rng(0).normal(size=(200, 3))
    actions = policy.predict(obs)[0]
    assert actions.shape == (200, 1)
    assert np.abs(actions).max() <= 2
    assert actions.std() > 0


def test_an_ensemble_averages_probabilities(cartpole: DistilledDataset) -> None:
    ensemble = DistilledPolicy(cartpole, seed=0).ensemble(5)
    assert len(ensemble) == 5
    obs = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    with torch.no_grad():
        outputs = [ensemble.to_torch(i)(torch.from_numpy(obs)) for i in range(5)]
    mean = torch.stack(outputs).softmax(dim=-1).mean(dim=0)
    np.testing.assert_array_equal(ensemble.predict(obs, deterministic=True)[0], mean.argmax(dim=1).numpy())


def test_other_learners_can_be_named(cartpole: DistilledDataset) -> None:
    deep = DistilledPolicy(cartpole, learners={"family": "mlp", "depth": 4, "width": 48}, seed=0)
    assert sum(isinstance(module, torch.nn.Linear) for module in deep.to_torch().modules()) == 5
    with pytest.raises(TaskDistillError, match='Did you mean "xavier"'):
        DistilledPolicy(cartpole, learners="xavir")


def test_a_wrong_observation_is_refused(cartpole: DistilledDataset) -> None:
    with pytest.raises(DatasetError, match=r"\(4,\).*\(8,\)"):
        DistilledPolicy(cartpole).predict(np.zeros(4))


def test_from_file_and_from_zoo(cartpole: DistilledDataset, tmp_path: object) -> None:
    path = cartpole.save(f"{tmp_path}/mine")
    assert DistilledPolicy.from_file(path, seed=0).dataset == cartpole
    with pytest.raises(ZooError):
        DistilledPolicy.from_zoo("CartPoleND-v0", n=77)


def test_it_has_the_spaces_of_its_env(cartpole: DistilledDataset) -> None:
    policy, env = DistilledPolicy(cartpole), gym.make("CartPoleND-v0", n=2)
    assert policy.action_space == env.action_space
    assert policy.observation_space.shape == env.observation_space.shape
    assert DistilledPolicy(pendulum_dataset()).action_space == gym.make("Pendulum-v1").action_space
    assert policy.action_space.contains(policy.predict(policy.observation_space.sample())[0])
