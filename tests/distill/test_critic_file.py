"""Another run can go on with the critic of a dataset's run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from gym_taskdistill.distill import critic_file
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError


def small(seed: int, normalized: bool = True, **settings: Any) -> PPMO:
    env: Any = make_vec_env("Pendulum-v1", n_envs=4)
    if normalized:
        env = VecNormalize(env)
    return PPMO(
        "alpha_c", env, k=4, n_learners=2, n_steps=16, batch_size=32, seed=seed, device="cpu", **settings
    )


def values(model: PPMO) -> torch.Tensor:
    obs = torch.linspace(-1, 1, 30).reshape(10, 3)
    with torch.no_grad():
        return model.policy.predict_values(obs)


def test_round_trip(tmp_path: Path) -> None:
    model, other = small(0), small(1)
    model.learn(128)
    critic_file.write(model, tmp_path / "critic.safetensors")
    assert not torch.allclose(values(other), values(model))
    assert critic_file.read(other, tmp_path / "critic.safetensors")
    assert torch.equal(values(other), values(model))
    ours, theirs = model.get_vec_normalize_env(), other.get_vec_normalize_env()
    assert ours is not None and theirs is not None and ours.ret_rms.count > 128
    rewards = np.array([1.0, -2.0, 3.0, 0.0])
    np.testing.assert_allclose(theirs.normalize_reward(rewards), ours.normalize_reward(rewards))
    other.learn(128)  # and the run goes on from it


@pytest.mark.parametrize("settings", [{"critic": {"family": "mlp", "width": 32}}, {"normalized": False}])
def test_a_critic_that_does_not_fit_is_left(tmp_path: Path, settings: dict[str, Any]) -> None:
    critic_file.write(small(0), tmp_path / "critic.safetensors")
    other = small(1, **settings)
    before = values(other)
    assert not critic_file.read(other, tmp_path / "critic.safetensors")
    assert torch.equal(values(other), before)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "critic.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(TaskDistillError, match="cannot be read"):
        critic_file.read(small(0), path)
