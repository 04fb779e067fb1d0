"""The normalising wrapper against the dataset's own view and against SB3's `VecNormalize`."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from gym_taskdistill import PPMO, DistilledDataset
from gym_taskdistill.errors import DatasetError
from gym_taskdistill.wrappers import FrozenNormalizeObservation


@pytest.fixture(scope="module")
def trained() -> tuple[VecNormalize, DistilledDataset]:
    """A dataset whose statistics a few hundred steps of Pendulum made, and the normaliser they came from."""
    vec_env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 4), clip_obs=1.5)
    model = PPMO("alpha_c", vec_env, k=8, n_steps=64, batch_size=256, n_epochs=1, seed=0, device="cpu")
    model.learn(512)
    return vec_env, model.dataset()


def test_it_shows_what_the_learners_saw(trained: tuple[VecNormalize, DistilledDataset]) -> None:
    vec_env, dataset = trained
    env = FrozenNormalizeObservation(gym.make("Pendulum-v1"), dataset)
    raw_env = gym.make("Pendulum-v1")
    obs, raw = env.reset(seed=3)[0], raw_env.reset(seed=3)[0]
    env.action_space.seed(3)
    clipped = 0
    for _ in range(50):
        np.testing.assert_allclose(obs, vec_env.normalize_obs(raw), atol=1e-5)
        assert obs.dtype == np.float32
        assert env.observation_space.contains(obs)
        clipped += int((np.abs(obs) == 1.5).any())
        action = env.action_space.sample()
        obs, raw = env.step(action)[0], raw_env.step(action)[0]
    assert clipped  # the bound is seen to work


def test_it_scales_and_shifts_after_the_clip(trained: tuple[VecNormalize, DistilledDataset]) -> None:
    vec_env, dataset = trained
    scale = torch.tensor([0.5, 1.0, 2.0])
    shift = torch.tensor([-1.0, 0.0, 2.0])
    dataset = dataset.replace(obs_scale=scale, obs_shift=shift)
    env = FrozenNormalizeObservation(gym.make("Pendulum-v1"), dataset)
    raw = gym.make("Pendulum-v1").reset(seed=3)[0]
    expected = vec_env.normalize_obs(raw) * scale.numpy() + shift.numpy()
    np.testing.assert_allclose(env.reset(seed=3)[0], expected, atol=1e-5)
    np.testing.assert_allclose(env.observation_space.high, [-0.25, 1.5, 5.0])
    np.testing.assert_allclose(env.observation_space.low, [-1.75, -1.5, -1.0])


def test_it_learns_nothing(trained: tuple[VecNormalize, DistilledDataset]) -> None:
    env = FrozenNormalizeObservation(gym.make("Pendulum-v1"), trained[1])
    first = env.reset(seed=0)[0]
    for _ in range(100):
        env.step(env.action_space.sample())
    np.testing.assert_array_equal(env.reset(seed=0)[0], first)


@pytest.mark.filterwarnings(
    "ignore:.*is different from the unwrapped version", "ignore:.*For Box action spaces"
)
def test_gymnasium_accepts_it(trained: tuple[VecNormalize, DistilledDataset]) -> None:
    env = FrozenNormalizeObservation(gym.make("Pendulum-v1", disable_env_checker=True), trained[1])
    check_env(env, skip_render_check=True)


def test_without_statistics_observations_pass(trained: tuple[VecNormalize, DistilledDataset]) -> None:
    plain = trained[1].replace(obs_mean=None, obs_var=None, clip_obs=None)
    env = FrozenNormalizeObservation(gym.make("Pendulum-v1"), plain)
    raw = gym.make("Pendulum-v1").reset(seed=1)[0]
    np.testing.assert_array_equal(env.reset(seed=1)[0], raw.astype(np.float32))
    assert np.isinf(env.observation_space.high).all()  # type: ignore[attr-defined]
    assert torch.equal(env.dataset.x, plain.x)


def test_another_env_is_refused(trained: tuple[VecNormalize, DistilledDataset]) -> None:
    with pytest.raises(DatasetError, match="Pendulum-v1"):
        FrozenNormalizeObservation(gym.make("CartPole-v1"), trained[1])
