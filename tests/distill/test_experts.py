"""Experts, and recordings of what they would do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import VecEnv

from gym_taskdistill import DistilledPolicy
from gym_taskdistill.distill.experts import (
    CHOSEN_LOGIT,
    Recording,
    as_expert,
    load_expert,
    record,
    recording_env,
)
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.task import Task

CART_POLE = Task("CartPoleND-v0", {"n": 2})


@pytest.fixture(scope="module")
def zoo_policy() -> DistilledPolicy:
    return DistilledPolicy.from_zoo("CartPoleND-v0", n=2, seed=0)


def cart_pole(n_envs: int = 4) -> VecEnv:
    return CART_POLE.make_vec_env(n_envs, seed=0)


def observations(n: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, size)).astype(np.float32)


# -- experts ---------------------------------------------------------------------------------------


def test_a_distilled_policy_is_an_expert(zoo_policy: DistilledPolicy) -> None:
    obs = observations(6, 8)
    targets = as_expert(zoo_policy)(obs)
    assert targets.shape == (6, 4)
    assert (targets.argmax(1) == zoo_policy.predict(obs, deterministic=True)[0]).all()


@pytest.mark.parametrize(("env_id", "size", "outputs"), [("CartPole-v1", 4, 2), ("Pendulum-v1", 3, 1)])
def test_an_actor_critic_of_sb3_tells_its_distribution(env_id: str, size: int, outputs: int) -> None:
    model = PPO("MlpPolicy", env_id, seed=0, device="cpu")
    obs = observations(6, size)
    targets = as_expert(model)(obs)
    assert targets.shape == (6, outputs)
    with torch.no_grad():
        latent = model.policy.mlp_extractor.forward_actor(torch.as_tensor(obs))
        raw = model.policy.action_net(latent)
    expected = raw.log_softmax(1) if outputs == 2 else raw
    np.testing.assert_allclose(targets, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_a_model_without_a_distribution_tells_its_action() -> None:
    model = DQN("MlpPolicy", "CartPole-v1", seed=0, device="cpu", buffer_size=100)
    obs = observations(6, 4)
    actions, _ = model.predict(obs, deterministic=True)
    assert (as_expert(model)(obs) == CHOSEN_LOGIT * np.eye(2)[actions]).all()


def test_an_expert_may_be_any_function_but_not_anything() -> None:
    def function(obs: np.ndarray) -> np.ndarray:
        return obs

    assert as_expert(function) is function
    with pytest.raises(TaskDistillError, match="A str is no expert"):
        as_expert("PPO")  # type: ignore[arg-type]


def test_one_action_may_be_the_expert() -> None:
    expert, task = load_expert("action:1", spaces.Discrete(3))
    assert task is None
    assert (expert(np.zeros((4, 2))) == CHOSEN_LOGIT * np.eye(3)[1]).all()
    for space in (spaces.Discrete(1), spaces.Box(-1, 1, (3,))):
        with pytest.raises(TaskDistillError, match='"action:1" does not fit'):
            load_expert("action:1", space)


# -- recordings ------------------------------------------------------------------------------------


def test_a_recording_is_what_was_seen_and_what_the_expert_would_do(zoo_policy: DistilledPolicy) -> None:
    recording = record(as_expert(zoo_policy), cart_pole(), 10, seed=3)
    assert recording.observations.shape == (12, 8) and len(recording) == 12  # 3 steps of 4 envs
    np.testing.assert_allclose(recording.targets, as_expert(zoo_policy)(recording.observations), rtol=1e-4)
    assert len(np.unique(recording.observations, axis=0)) == 12
    again = record(as_expert(zoo_policy), cart_pole(), 10, seed=3)
    other = record(as_expert(zoo_policy), cart_pole(), 10, seed=4)
    assert (again.observations == recording.observations).all()
    assert (other.observations != recording.observations).any()
    assert len(Recording.join([recording, other])) == 24


def test_a_recording_is_written_and_read(tmp_path: Path) -> None:
    recording = Recording(np.arange(12, dtype=np.uint8).reshape(3, 2, 2), np.eye(3, dtype=np.float32))
    recording.save(tmp_path / "one.npz")
    read = Recording.load(tmp_path / "one.npz")
    assert read.observations.dtype == np.uint8 and (read.observations == recording.observations).all()
    assert (read.targets == recording.targets).all()
    assert [path.name for path in tmp_path.iterdir()] == ["one.npz"]
    (tmp_path / "two.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:100])
    with pytest.raises(TaskDistillError, match=r"two.npz\" cannot be read"):
        Recording.load(tmp_path / "two.npz")


def test_damaged_recordings_end_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    Recording(np.arange(40.0).reshape(10, 4), np.ones((10, 1), dtype=np.float32)).save(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):  # zipfile, zlib, struct and NumPy each have errors of their own
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x14]) + whole[place + 1 :])
        try:
            Recording.load(path)
        except TaskDistillError as error:
            assert "\n" not in str(error)
    rows, labels = np.zeros((5, 4)), np.zeros((5, 2))
    for observations, targets, message in (
        (rows, labels[:3], "as many observations as targets"),
        (np.float32(3), np.float32(3), "as many observations as targets"),
        (np.full(5, "a"), labels, "does not hold numbers"),
        (np.full(5, None), labels, "cannot be read"),
        (np.where(rows == 0, np.nan, rows), labels, "not finite"),
        (rows, np.full((5, 2), np.inf), "not finite"),
    ):
        np.savez(path, observations=observations, targets=targets)
        with pytest.raises(TaskDistillError, match=message):
            Recording.load(path)


def test_somebody_else_may_play(zoo_policy: DistilledPolicy) -> None:
    class Stubborn:
        def predict(self, observation: np.ndarray) -> tuple[np.ndarray, Any]:
            return np.full(len(observation), 3), None

    played: list[np.ndarray] = []

    class Spy:
        """Notes the actions on their way to the env."""

        def __init__(self, env: VecEnv) -> None:
            self.env = env

        def __getattr__(self, name: str) -> Any:
            return getattr(self.env, name)

        def step(self, actions: np.ndarray) -> Any:
            played.append(actions.copy())
            return self.env.step(actions)

    expert = as_expert(zoo_policy)
    record(expert, Spy(cart_pole()), 400, behaviour=Stubborn())  # type: ignore[arg-type]
    assert (np.stack(played) == 3).all()
    played.clear()
    record(expert, Spy(cart_pole()), 400, behaviour=Stubborn(), noise=0.4)  # type: ignore[arg-type]
    assert 0.6 < (np.stack(played) == 3).mean() < 0.8  # 0.6 + 0.4 / 4
    played.clear()
    record(expert, Spy(cart_pole()), 400, behaviour=Stubborn(), beta=0.8)  # type: ignore[arg-type]
    assert 0.2 < (np.stack(played) == 3).mean() < 0.6  # 0.2 + 0.8 / 4
    with pytest.raises(TaskDistillError, match="beta must lie between 0 and 1, but is 1.5"):
        record(expert, cart_pole(), 4, beta=1.5)


def test_the_expert_may_see_something_else(zoo_policy: DistilledPolicy) -> None:
    expert = as_expert(zoo_policy)
    recording = record(expert, cart_pole(), 8, view=lambda env, obs: np.zeros_like(obs))
    assert (recording.targets == recording.targets[0]).all()


@pytest.mark.slow
def test_an_expert_of_a_games_ram_teaches_its_pixels() -> None:
    ram = Task("PongNoFrameskip-v4", {"obs_type": "ram"})
    env, view = recording_env(Task("PongNoFrameskip-v4"), 2, ram)
    assert view is not None
    seen: list[np.ndarray] = []

    def expert(rams: np.ndarray) -> np.ndarray:
        seen.append(rams)
        return np.eye(6, dtype=np.float32)[[2, 3]]

    recording = record(expert, env, 60, view=view, seed=0)
    assert recording.observations.shape == (60, 4, 84, 84) and recording.observations.dtype == np.uint8
    rams = np.stack(seen)
    _, view = recording_env(Task("PongNoFrameskip-v4"), 2, Task("PongNoFrameskip-v4", {"obs_type": "bits"}))
    assert view is not None
    np.testing.assert_array_equal(
        np.packbits(view(env, recording.observations[-2:]), axis=1),
        np.stack([ale.getRAM() for ale in env.get_attr("ale")]),
    )
    assert rams.shape == (30, 2, 128) and rams.dtype == np.uint8
    assert (rams[0] != rams[-1]).any(axis=1).all()
    assert (recording.targets.reshape(30, 2, 6).argmax(-1) == [2, 3]).all()
    with pytest.raises(TaskDistillError, match="An expert of PongNoFrameskip-v4.* cannot play Breakout"):
        recording_env(Task("BreakoutNoFrameskip-v4"), 2, ram)


def test_an_expert_of_another_task_is_refused() -> None:
    with pytest.raises(TaskDistillError, match=r"outputs of shape \(4, 2\).* need \(4, 4\)"):
        record(lambda obs: obs[:, :2], cart_pole(), 8)
