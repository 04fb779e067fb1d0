"""The adapter from gymnasium's vector envs to SB3, against single envs and `DummyVecEnv`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

from gym_taskdistill.envs import CartPoleNDVectorEnv
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.processes import ProcessVecEnv
from gym_taskdistill.tasks.vec_env import GymnasiumVecEnv


def adapted(num_envs: int, **kwargs: Any) -> GymnasiumVecEnv:
    kwargs.setdefault("autoreset_mode", AutoresetMode.SAME_STEP)
    return GymnasiumVecEnv(CartPoleNDVectorEnv(num_envs, **kwargs))


def synced(env_id: str, num_envs: int, **kwargs: Any) -> GymnasiumVecEnv:
    venv: VectorEnv[Any, Any, Any] = gym.make_vec(
        env_id,
        num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **kwargs,
    )
    return GymnasiumVecEnv(venv)


def test_one_column_equals_the_single_env() -> None:
    """Over several episodes: observations, rewards, ends, last and first observations."""
    vec_env, env = adapted(1, n=2), gym.make("CartPoleND-v0", n=2)
    vec_env.seed(5)
    rng = np.random.default_rng(0)
    obs, (single, _) = vec_env.reset(), env.reset(seed=5)
    np.testing.assert_array_equal(obs[0], single)
    ends = 0
    for _ in range(100):
        action = int(rng.integers(4))
        obs, rewards, dones, infos = vec_env.step(np.array([action]))
        single, reward, terminated, truncated, _ = env.step(action)
        assert (rewards[0], dones[0]) == (reward, terminated or truncated)
        assert rewards.dtype == np.float32
        if dones[0]:
            ends += 1
            np.testing.assert_array_equal(infos[0]["terminal_observation"], single)
            assert infos[0]["TimeLimit.truncated"] is False
            single, _ = env.reset()
        else:
            assert infos[0] == {}
        np.testing.assert_array_equal(obs[0], single)
    assert ends >= 3


@pytest.mark.parametrize(
    ("env_id", "limit"), [("CartPole-v1", 12), ("Pendulum-v1", 7), ("CartPoleND-v0", 500)]
)
def test_it_behaves_as_sb3s_own_vec_env(env_id: str, limit: int) -> None:
    ours = synced(env_id, 3, max_episode_steps=limit)
    theirs = DummyVecEnv([lambda: gym.make(env_id, max_episode_steps=limit)] * 3)
    theirs.action_space.seed(0)
    ours.seed(4)
    theirs.seed(4)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    ends = []
    for _ in range(60):
        actions = np.array([theirs.action_space.sample() for _ in range(3)])
        obs, rewards, dones, infos = ours.step(actions)
        obs_, rewards_, dones_, infos_ = theirs.step(actions)
        np.testing.assert_array_equal(obs, obs_)
        np.testing.assert_allclose(rewards, rewards_)
        np.testing.assert_array_equal(dones, dones_)
        for info, info_, done in zip(infos, infos_, dones, strict=True):
            assert ("terminal_observation" in info) == done
            if done:
                np.testing.assert_array_equal(info["terminal_observation"], info_["terminal_observation"])
                assert info["TimeLimit.truncated"] == info_["TimeLimit.truncated"]
                ends.append(info["TimeLimit.truncated"])
    assert ends
    if env_id == "CartPole-v1":
        assert set(ends) == {False, True}


def test_a_terminal_observation_is_a_copy() -> None:
    vec_env = adapted(8)
    vec_env.seed(0)
    vec_env.reset()
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(40):
        obs, _, _, infos = vec_env.step(np.ones(8, dtype=int))
        for i, info in enumerate(infos):
            if "terminal_observation" in info:
                last = info["terminal_observation"]
                assert last.shape == (4,)
                assert last.dtype == np.float32
                assert not np.array_equal(last, obs[i])
                assert abs(last[2]) > 0.2 or abs(last[0]) > 2.4  # the pole has fallen
                assert np.abs(obs[i]).max() <= 0.05  # and stands again
                kept.append((last, last.copy()))
        obs.fill(np.nan)
    assert len(kept) >= 16
    for last, copy in kept:
        np.testing.assert_array_equal(last, copy)


def steps_to_failure() -> int:
    vec_env = adapted(1)
    vec_env.seed(0)
    vec_env.reset()
    for step in range(1, 100):
        if vec_env.step(np.array([1]))[2][0]:
            return step
    raise AssertionError("A constant push keeps the pole up.")


@pytest.mark.parametrize(("after_failure", "truncated"), [(-1, True), (0, False), (1, False)])
def test_a_time_limit_counts_only_if_nothing_else_ended_the_episode(
    after_failure: int, truncated: bool
) -> None:
    limit = steps_to_failure() + after_failure
    vec_env = adapted(1, max_episode_steps=limit)
    vec_env.seed(0)
    vec_env.reset()
    for _ in range(1, min(limit, steps_to_failure())):
        assert not vec_env.step(np.array([1]))[2][0]
    _, _, dones, infos = vec_env.step(np.array([1]))
    assert dones[0]
    assert infos[0]["TimeLimit.truncated"] is truncated


def test_a_seed_holds_for_one_reset() -> None:
    vec_env = adapted(4)
    vec_env.seed(7)
    first, second = vec_env.reset(), vec_env.reset()
    assert not np.array_equal(first, second)
    vec_env.seed(7)
    np.testing.assert_array_equal(vec_env.reset(), first)
    np.testing.assert_array_equal(vec_env.reset(), second)
    vec_env.seed(8)
    assert not np.array_equal(vec_env.reset(), first)
    assert len(np.unique(first, axis=0)) == 4


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_autoreset_modes_are_refused(mode: AutoresetMode) -> None:
    venv = gym.make_vec("CartPole-v1", 2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode})
    with pytest.raises(TaskDistillError, match=r"make it with autoreset_mode=.*SAME_STEP") as caught:
        GymnasiumVecEnv(venv)
    assert str(mode) in str(caught.value)
    with pytest.raises(TaskDistillError, match="reset in the same step"):
        GymnasiumVecEnv(gym.make_vec("CartPoleND-v0", 2))


def test_ppo_learns_on_it() -> None:
    vec_env = VecMonitor(adapted(4))
    model = PPO("MlpPolicy", vec_env, n_steps=64, batch_size=64, n_epochs=1, device="cpu", seed=0)
    before = model.policy.action_net.weight.clone()
    model.learn(256)
    assert model.num_timesteps == 256
    assert not bool((model.policy.action_net.weight == before).all())
    assert model.ep_info_buffer
    for episode in model.ep_info_buffer:
        assert episode["r"] == episode["l"] >= 8


def test_attributes_are_those_of_the_vector_env() -> None:
    vec_env = adapted(3, n=2)
    vec_env.venv.spec = gym.spec("CartPoleND-v0")
    assert vec_env.spec == gym.spec("CartPoleND-v0")
    assert [spec.id for spec in vec_env.get_attr("spec")] == ["CartPoleND-v0"] * 3
    assert vec_env.get_attr("n", indices=[0, 2]) == [2, 2]
    vec_env.set_attr("max_episode_steps", 9)
    assert vec_env.get_attr("max_episode_steps", indices=1) == [9]
    assert vec_env.env_is_wrapped(gym.Wrapper) == [False] * 3
    first, second = vec_env.env_method("reset", indices=[0, 2], seed=3)
    assert first is second
    assert first[0].shape == (3, 8)
    assert vec_env.observation_space == gym.make("CartPoleND-v0", n=2).observation_space
    assert vec_env.action_space == gym.spaces.Discrete(4)
    with pytest.raises(AttributeError):
        vec_env.get_attr("no_such_attribute")


class Telling(gym.Env[Any, Any]):
    """Tells much, and takes its seed and its options for what it tells."""

    observation_space = gym.spaces.Dict({"a": gym.spaces.Discrete(9), "b": gym.spaces.Box(-1, 1, (2,))})
    action_space = gym.spaces.Discrete(3)

    def __init__(self, length: int) -> None:
        self.length = self.left = length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.left, self.told = self.length, {"seed": seed, **(options or {})}
        return self.observe(), {"begins": True, **self.told}

    def observe(self) -> dict[str, Any]:
        return {"a": self.left, "b": np.full(2, 0.1 * self.left, np.float32)}

    def step(self, action: Any) -> Any:
        self.left -= 1
        info = {"left": self.left, "own": {"pair": np.array([action, 2])}}
        return self.observe(), 1.0, self.left == 0, False, info | ({"only": "now"} if action == 2 else {})


def test_what_single_envs_tell_is_told_as_by_sb3() -> None:
    """Infos, those of resets, options of each env, observations that are dictionaries, and attributes."""
    fns = [lambda: Telling(3), lambda: Telling(2)]
    ours = GymnasiumVecEnv(SyncVectorEnv(fns, autoreset_mode=AutoresetMode.SAME_STEP))
    theirs = DummyVecEnv(fns)
    for options in ([{"x": 1}, {"x": 2}], [{"x": 3}] * 2, [{}, {"x": 4}]):
        seen = []
        for vec_env in (ours, theirs):
            vec_env.seed(5)
            vec_env.set_options(options)
            seen.append((vec_env.reset(), vec_env.get_attr("told"), vec_env.reset_infos))
        np.testing.assert_equal(seen[0], seen[1])
    for actions in ([0, 2], [1, 1], [2, 0], [0, 1], [0, 0]):
        ours_saw, theirs_saw = (vec_env.step(np.array(actions)) for vec_env in (ours, theirs))
        np.testing.assert_equal(ours_saw[:3], theirs_saw[:3])
        for info, expected, done in zip(ours_saw[3], theirs_saw[3], ours_saw[2], strict=True):
            expected = {k: v for k, v in expected.items() if done or k != "TimeLimit.truncated"}
            np.testing.assert_equal(info, expected)
        np.testing.assert_equal(ours.reset_infos, theirs.reset_infos)
    for vec_env in (ours, theirs):
        vec_env.set_attr("length", 7, indices=-1)
        assert vec_env.get_attr("length") == [3, 7]
        vec_env.env_method("reset", indices=[1], seed=8)
        assert vec_env.get_attr("told", indices=1) == [{"seed": 8}]
        assert vec_env.env_is_wrapped(gym.Wrapper) == [False, False]
    vec_env = synced("CartPole-v1", 2)
    assert vec_env.env_is_wrapped(gym.wrappers.TimeLimit, indices=1) == [True]
    with pytest.raises(AttributeError):
        vec_env.get_attr("no_such_attribute")


class Choosing(gym.Env[Any, Any]):
    """Shows what was done, of spaces that hold others."""

    def __init__(self, space: gym.Space[Any]) -> None:
        self.observation_space = self.action_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.observation_space.seed(0)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        return action, 0.0, False, False, {}


PARTS = {"a": gym.spaces.Discrete(3), "b": gym.spaces.Box(-1, 1, (2,))}


@pytest.mark.parametrize("space", [gym.spaces.Dict(PARTS), gym.spaces.Tuple(list(PARTS.values()))])
@pytest.mark.parametrize("made", ["adapter", "processes"])
def test_spaces_that_hold_others(space: gym.Space[Any], made: str) -> None:
    def make() -> gym.Env[Any, Any]:
        return Choosing(space)

    ours: VecEnv
    if made == "adapter":
        ours = GymnasiumVecEnv(SyncVectorEnv([make] * 3, autoreset_mode=AutoresetMode.SAME_STEP))
    else:
        ours = ProcessVecEnv(lambda first, n: DummyVecEnv([make] * n), 3, 2)
    theirs = DummyVecEnv([make] * 3)
    np.testing.assert_equal(ours.reset(), theirs.reset())
    actions: Any = [space.sample() for _ in range(3)]
    np.testing.assert_equal(ours.step(actions)[0], theirs.step(actions)[0])
    ours.close()


def test_no_frames_without_a_render_mode() -> None:
    vec_env = adapted(2)
    vec_env.reset()
    assert list(vec_env.get_images()) == [None, None]


def test_frames_of_every_env() -> None:
    pytest.importorskip("pygame")
    vec_env = adapted(2, render_mode="rgb_array")
    vec_env.reset()
    frames = vec_env.get_images()
    assert len(frames) == 2
    for frame in frames:
        assert frame is not None
        assert frame.dtype == np.uint8
        assert frame.ndim == 3
    assert vec_env.render_mode == "rgb_array"
    vec_env.close()


def test_options_reach_the_reset_as_in_sb3() -> None:
    vec_env = adapted(3)
    vec_env.set_options({"low": 0.04, "high": 0.05})
    assert (vec_env.reset() >= 0.04).all()
    vec_env.reset()  # used once
    vec_env.set_options([{"low": 0.04, "high": 0.05}, {}, {}])
    with pytest.raises(TaskDistillError, match="give set_options one dictionary"):
        vec_env.reset()
