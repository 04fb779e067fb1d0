"""Many Atari games: ALE's vector env against single envs, and what training adds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.atari.vec_env import AtariTraining, AtariVecEnv
from gym_taskdistill.tasks.task import Task
from gym_taskdistill.wrappers import make_atari_env

#: A life takes some seconds of random play, and there are rewards other than 1.
TASKS = [
    Task("SpaceInvadersNoFrameskip-v4"),
    Task("SpaceInvadersNoFrameskip-v4", {"obs_type": "ram"}),
]


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["BreakoutNoFrameskip-v4", "FreewayNoFrameskip-v4"])
def test_a_column_equals_the_single_env(env_id: str) -> None:
    """Rewards, lives, ends and spaces; and grey levels to 1, for another OpenCV may round otherwise."""
    pytest.importorskip("cv2")
    vec_env, env = AtariVecEnv(env_id, 1, noop_max=0), make_atari_env(env_id, noop_max=0)
    assert vec_env.observation_space == env.observation_space
    assert vec_env.action_space == env.action_space
    obs, (single, info) = vec_env.reset(), env.reset(seed=0)
    env.action_space.seed(0)
    ends, total = 0, 0.0
    for _ in range(400):
        np.testing.assert_allclose(obs[0].astype(int), single, atol=1)
        action = env.action_space.sample()
        obs, rewards, dones, infos = vec_env.step(np.array([action]))
        single, reward, terminated, _, info = env.step(action)
        assert (rewards[0], dones[0]) == (reward, terminated)
        total += reward
        if terminated:
            ends += 1
            np.testing.assert_allclose(infos[0]["terminal_observation"].astype(int), single, atol=1)
            assert infos[0]["TimeLimit.truncated"] is False
            single, info = env.reset()
            assert not np.array_equal(infos[0]["terminal_observation"], obs[0])
        assert infos[0]["lives"] == info["lives"]
    assert rewards.dtype == np.float32
    if env_id.startswith("Breakout"):
        assert ends >= 1
        assert total >= 1


def test_the_vector_env_resets_in_the_same_step_and_others_stay_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(VectorEnv, "metadata", {})
    vec_env = AtariVecEnv("PongNoFrameskip-v4", 1)
    assert vec_env.venv.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert VectorEnv.metadata == {}


def test_observations_keep_their_values() -> None:
    vec_env = AtariVecEnv("PongNoFrameskip-v4", 2)
    kept = [vec_env.reset()]
    for _ in range(6):
        kept.append(vec_env.step(np.array([2, 3], dtype=np.uint8))[0])  # actions of any integer type
    copies = [obs.copy() for obs in kept]
    for _ in range(6):
        vec_env.step(np.array([2, 3]))
    for obs, copy in zip(kept, copies, strict=True):
        np.testing.assert_array_equal(obs, copy)
    np.testing.assert_array_equal(kept[-1][:, 2], kept[-2][:, 3])  # the stack moves on


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_it_obeys_seeds(seed: int) -> None:
    vec_env = AtariVecEnv("PongNoFrameskip-v4", 3)
    starts = []
    for _ in range(2):
        vec_env.seed(seed)
        vec_env.reset()
        starts.append([vec_env.step(np.zeros(3, dtype=int))[0] for _ in range(20)][-1])
    np.testing.assert_array_equal(*starts)
    assert len(np.unique(starts[0], axis=0)) > 1


@pytest.mark.slow
def test_seeds_that_are_not_given_are_drawn() -> None:
    vec_env = Task("PongNoFrameskip-v4").make_vec_env(2)
    assert vec_env.reset().shape == (2, 4, 84, 84)


def test_no_env_at_all_is_refused() -> None:
    with pytest.raises(TaskDistillError, match="needs at least 1 env, not 0"):
        AtariVecEnv("PongNoFrameskip-v4", 0)


def test_it_draws_nothing() -> None:
    vec_env = AtariVecEnv("PongNoFrameskip-v4", 2)
    assert vec_env.render_mode is None
    assert list(vec_env.get_images()) == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS, ids=str)
def test_games_are_truncated_at_the_cap(task: Task) -> None:
    short = Task(task.env_id, {**task.env_kwargs, "max_num_frames_per_episode": 40})
    for training in (False, True):
        vec_env = short.make_vec_env(2, seed=0, training=training)
        vec_env.reset()
        for step in range(1, 11):
            obs, _, dones, infos = vec_env.step(np.zeros(2, dtype=int))
            assert dones.tolist() == [step == 10] * 2
        for info, first in zip(infos, obs, strict=True):
            assert info["TimeLimit.truncated"] is True
            assert info["episode"]["l"] == 10
            assert not np.array_equal(info["terminal_observation"], first)


def steps(vec_env: VecEnv, n_steps: int) -> Iterator[tuple[Any, ...]]:
    """Play the same random actions on every vec-env."""
    rng = np.random.default_rng(1)
    vec_env.reset()
    for _ in range(n_steps):
        yield vec_env.step(rng.integers(6, size=vec_env.num_envs))


@pytest.mark.slow
def test_rewards_may_stay_as_they_are() -> None:
    _, task = TASKS
    plain = task.make_vec_env(2, seed=1)
    training = task.make_vec_env(2, seed=1, training=True, clip_reward=False)
    seen, lives_end = set(), 0
    for scored, trained in zip(steps(plain, 300), steps(training, 300), strict=True):
        np.testing.assert_array_equal(trained[1], scored[1])
        seen.update(scored[1])
        lives_end += (trained[2] & ~scored[2]).sum()
    assert max(seen) > 1 and lives_end > 0


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS, ids=str)
def test_training_ends_at_lost_lives_but_games_are_counted_whole(task: Task) -> None:
    plain, training = task.make_vec_env(2, seed=1), task.make_vec_env(2, seed=1, training=True)
    assert isinstance(training, AtariTraining)
    assert not isinstance(plain, AtariTraining)
    raw, lives, lost = np.zeros(2), np.full(2, 3), np.zeros(2, dtype=int)
    games, kept = 0, []
    for scored, trained in zip(steps(plain, 500), steps(training, 500), strict=True):
        (obs, rewards, dones, infos), (obs_, rewards_, dones_, infos_) = scored, trained
        np.testing.assert_array_equal(obs, obs_)
        np.testing.assert_array_equal(rewards_, np.sign(rewards))
        assert rewards_.dtype == np.float32
        raw += rewards
        for i in range(2):
            if dones[i]:
                assert dones_[i]
                assert infos_[i]["episode"]["r"] == infos[i]["episode"]["r"] == raw[i]
                assert raw[i] > 3 and lost[i] == 2
                games += 1
                raw[i], lives[i], lost[i] = 0, 3, 0
                continue
            is_lost = infos[i]["lives"] < lives[i]
            lives[i] = infos[i]["lives"]
            assert dones_[i] == is_lost
            assert ("terminal_observation" in infos_[i]) == is_lost
            assert "episode" not in infos_[i]
            assert "terminal_observation" not in infos[i]
            if is_lost:
                lost[i] += 1
                np.testing.assert_array_equal(infos_[i]["terminal_observation"], obs_[i])
                assert infos_[i]["TimeLimit.truncated"] is False
                kept.append((infos_[i]["terminal_observation"], obs_[i].copy()))
                obs_[i] = 0  # must not reach the terminal observation
    assert games >= 1
    assert len(kept) >= 3
    for last, copy in kept:
        np.testing.assert_array_equal(last, copy)


class Lives(gym.Env[np.ndarray, int]):
    """A game of one byte whose lives are told beforehand."""

    observation_space = gym.spaces.Box(0, 255, (1,), np.uint8)
    action_space = gym.spaces.Discrete(2)
    told = (2, 2, 1, 0, 3, 3)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        self.steps = 0
        return np.zeros(1, dtype=np.uint8), {"lives": 2}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        lives = self.told[self.steps]
        self.steps += 1
        obs = np.full(1, self.steps, dtype=np.uint8)
        return obs, 0.0, self.steps == len(self.told), False, {"lives": lives}


def test_only_a_lost_life_ends_a_training_episode_early() -> None:
    """Not a game that stands at zero lives for a while, nor a new one with fewer lives than the last."""
    vec_env = AtariTraining(DummyVecEnv([Lives]))
    for n_steps in (5, 12):
        vec_env.reset()
        steps = [vec_env.step(np.zeros(1, dtype=int)) for _ in range(n_steps)]
        ends = [bool(dones[0]) for _, _, dones, _ in steps]
        assert ends == ([False, False, True, False, False, True] * 2)[:n_steps]
    terminal = [infos[0]["terminal_observation"][0] for _, _, dones, infos in steps if dones[0]]
    assert terminal == [3, 6, 3, 6]


def test_training_changes_nothing_elsewhere() -> None:
    for env_id in ("CartPole-v1", "CartPoleND-v0"):
        plain, training = (Task(env_id).make_vec_env(2, training=training) for training in (False, True))
        assert type(plain) is type(training)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["CnnPolicy", "MlpPolicy"])
def test_ppo_learns_on_it(policy: str) -> None:
    is_ram = policy == "MlpPolicy"
    task = Task("PongNoFrameskip-v4", {"obs_type": "ram"} if is_ram else {})
    vec_env = task.make_vec_env(2, seed=0, training=True)
    if is_ram:
        vec_env = VecNormalize(vec_env)
    model = PPO(policy, vec_env, n_steps=8, batch_size=16, n_epochs=1, device="cpu", seed=0)
    before = model.policy.action_net.weight.clone()
    model.learn(32)
    assert model.num_timesteps == 32
    assert not bool((model.policy.action_net.weight == before).all())


@pytest.mark.slow
def test_threads_change_nothing() -> None:
    one, two = (AtariVecEnv("PongNoFrameskip-v4", 4, num_threads=n) for n in (1, 2))
    for env in (one, two):
        env.seed(0)
    np.testing.assert_array_equal(one.reset(), two.reset())
    for action in range(6):
        for ours, theirs in zip(*(env.step(np.full(4, action))[:3] for env in (one, two)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
