"""Another run can go on with the critic of a dataset's run."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from gym_taskdistill.distill import critic_file
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.paths import data_root

DIGEST = "0123456789abcdef" * 4


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
    critic_file.write(model, tmp_path / "critic.safetensors", DIGEST)
    assert not torch.allclose(values(other), values(model))
    assert critic_file.read(other, tmp_path / "critic.safetensors", DIGEST)
    assert torch.equal(values(other), values(model))
    ours, theirs = model.get_vec_normalize_env(), other.get_vec_normalize_env()
    assert ours is not None and theirs is not None and ours.ret_rms.count > 128
    rewards = np.array([1.0, -2.0, 3.0, 0.0])
    np.testing.assert_allclose(theirs.normalize_reward(rewards), ours.normalize_reward(rewards))
    other.learn(128)  # and the run goes on from it


@pytest.mark.parametrize("settings", [{"critic": {"family": "mlp", "width": 32}}, {"normalized": False}])
def test_a_critic_that_does_not_fit_is_left(tmp_path: Path, settings: dict[str, Any]) -> None:
    critic_file.write(small(0), tmp_path / "critic.safetensors", DIGEST)
    other = small(1, **settings)
    before = values(other)
    assert not critic_file.read(other, tmp_path / "critic.safetensors", DIGEST)
    assert torch.equal(values(other), before)


def test_a_critic_of_another_dataset_is_left(tmp_path: Path) -> None:
    critic_file.write(small(0), tmp_path / "critic.safetensors", DIGEST)
    other = small(1)
    before = values(other)
    assert not critic_file.read(other, tmp_path / "critic.safetensors", DIGEST[::-1])
    assert torch.equal(values(other), before)


def test_files_of_the_first_version_are_read(tmp_path: Path) -> None:
    model, other, path = small(0), small(1), tmp_path / "critic.safetensors"
    critic_file.write(model, path, DIGEST)
    tensors, digest = critic_file.load(path)
    assert digest == DIGEST
    path.write_bytes(safetensors.torch.save(tensors))
    assert critic_file.read(other, path, DIGEST[::-1])
    assert torch.equal(values(other), values(model))
    shipped = list(data_root("zoo").glob("*/*/*.critic.safetensors"))
    assert shipped and all(critic_file.load(file)[0] for file in shipped)


@pytest.mark.slow
def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "critic.safetensors"
    critic_file.write(small(0), path, DIGEST)
    content = path.read_bytes()
    bits = [*range(1200), *random.Random(0).sample(range(8 * len(content)), 300)]
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(TaskDistillError, match="The critic"):
            critic_file.load(path)


@pytest.mark.parametrize("content", [b"", b"nothing", b"\0" * 200])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "critic.safetensors"
    path.write_bytes(content)
    with pytest.raises(TaskDistillError, match="cannot be read") as raised:
        critic_file.read(small(0), path, DIGEST)
    assert "\n" not in str(raised.value)
