"""The arm in torch is MuJoCo's, and rows that follow its gradient score more."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import refine_reacher
import torch
from refine_reacher import Arm, State

from gym_taskdistill import zoo


@pytest.fixture
def env() -> gym.Env[Any, Any]:
    """The official env."""
    return refine_reacher.TASK.make_env()


def test_the_arm_moves_and_is_rewarded_as_the_env_is(env: gym.Env[Any, Any]) -> None:
    arm, rng = Arm(env), np.random.default_rng(0)
    obs, _ = env.reset(seed=0)
    data = env.unwrapped.data  # type: ignore[attr-defined]
    angles, velocities = (torch.tensor(v[None, :2]) for v in (data.qpos, data.qvel))
    state = State(angles, velocities, torch.tensor(data.qpos[None, 2:]))
    for _ in range(refine_reacher.EPISODE_STEPS):
        np.testing.assert_allclose(arm.observe(state)[0].numpy(), obs, atol=1e-4)
        action = rng.uniform(-0.2, 0.2, 2)
        tensor = torch.tensor(action)[None]
        obs, reward, *_ = env.step(action)
        assert arm.reward(state, tensor).item() == pytest.approx(reward, abs=1e-5)
        state = arm.step(state, tensor)


def test_starts_are_the_envs(env: gym.Env[Any, Any]) -> None:
    starts = Arm(env).start(2000, torch.Generator().manual_seed(0))
    theirs = np.stack([env.reset(seed=seed)[0] for seed in range(500)])
    ours = Arm(env).observe(starts).numpy()
    assert ours.shape == (2000, 11)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.02)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=0.01)


@pytest.mark.slow
def test_refined_rows_score_more(env: gym.Env[Any, Any]) -> None:
    entry = zoo.load("Reacher-v4")
    model = refine_reacher.make_model(entry.replace(y=entry.y * 0.5), 1024, 2, 0, learning_rate=6e-3)
    arm = Arm(env)
    starts = arm.start(200, torch.Generator().manual_seed(1))

    def score() -> float:
        scores = []
        for seed in range(4):
            model.loop.generator.manual_seed(seed)
            model.loop.draw()
            with torch.no_grad():
                scores.append(refine_reacher.returns(model, arm, starts).mean().item())
        return float(np.mean(scores))

    before = score()
    refine_reacher.refine(model, arm, 20, 8, torch.Generator().manual_seed(3))
    assert score() > before + 1
