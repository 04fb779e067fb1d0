"""The encoder's view of an env against the policy that uses the same encoder."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from gym_taskdistill import PPMO, DistilledDataset, DistilledPolicy
from gym_taskdistill.errors import DatasetError
from gym_taskdistill.learners import MLP
from gym_taskdistill.wrappers import EncodeObservation, FrozenNormalizeObservation


def distil(encoder_layers: int) -> DistilledDataset:
    vec_env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 4))
    model = PPMO(
        MLP(width=12),
        vec_env,
        k=8,
        encoder_layers=encoder_layers,
        n_steps=64,
        batch_size=256,
        n_epochs=2,
        seed=0,
        device="cpu",
    )
    return model.learn(512).dataset()


@pytest.mark.parametrize(("encoder_layers", "size"), [(0, 3), (1, 12), (2, 12), (3, 1)])
def test_learners_on_top_of_the_features_are_the_policy(encoder_layers: int, size: int) -> None:
    dataset = distil(encoder_layers)
    policy = DistilledPolicy(dataset, seed=1)
    env, raw_env = EncodeObservation(gym.make("Pendulum-v1"), dataset), gym.make("Pendulum-v1")
    assert env.observation_space.shape == (size,)
    for seed in range(5):
        features, raw = env.reset(seed=seed)[0], raw_env.reset(seed=seed)[0]
        assert env.observation_space.contains(features)
        on_top = torch.as_tensor(features).view(1, 1, -1)
        head = policy.trained.learners
        output = head(on_top) if head.params else on_top
        action, _ = policy.predict(raw, deterministic=True)
        np.testing.assert_allclose(output.numpy().reshape(1).clip(-2, 2), action, atol=1e-5)


def test_without_an_encoder_it_only_normalises() -> None:
    dataset = distil(0)
    one, other = (
        wrapper(gym.make("Pendulum-v1"), dataset)
        for wrapper in (EncodeObservation, FrozenNormalizeObservation)
    )
    np.testing.assert_array_equal(one.reset(seed=2)[0], other.reset(seed=2)[0])


def test_another_env_is_refused() -> None:
    with pytest.raises(DatasetError, match="Pendulum-v1"):
        EncodeObservation(gym.make("CartPole-v1"), distil(1))
