"""The vector environment: equal to single ones, in both autoreset modes."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from gym_taskdistill.envs import CartPoleNDEnv, CartPoleNDVectorEnv

NEXT_STEP, SAME_STEP = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP


def assert_steps_equal(got: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    for ours, theirs in zip(got[:4], expected[:4], strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("num_envs", [1, 7])
def test_one_axis_is_gymnasiums_vector_cartpole_bit_for_bit(num_envs: int) -> None:
    ours = gym.make_vec("CartPoleND-v0", num_envs=num_envs, max_episode_steps=30)
    theirs = gym.make_vec("CartPole-v1", num_envs=num_envs, max_episode_steps=30)
    options = {"low": -0.1, "high": 0.02}  # kept for the automatic resets
    np.testing.assert_array_equal(
        ours.reset(seed=4, options=options)[0], theirs.reset(seed=4, options=options)[0]
    )
    rng = np.random.default_rng(4)
    ends = np.zeros(2)
    for _ in range(300):
        actions = rng.integers(2, size=num_envs)
        got = ours.step(actions)
        assert_steps_equal(got, theirs.step(actions))
        assert got[4] == {}
        ends += got[2].sum(), got[3].sum()
    assert (ends > 0).all()  # both kinds of end were compared


@pytest.mark.parametrize("n", [1, 2, 5])
def test_one_environment_is_the_single_one(n: int) -> None:
    envs, env = CartPoleNDVectorEnv(1, n, autoreset_mode=SAME_STEP), CartPoleNDEnv(n)
    np.testing.assert_array_equal(envs.reset(seed=2)[0][0], env.reset(seed=2)[0])
    for action in np.random.default_rng(2).integers(2 * n, size=200):
        observations, _, terminated, _, _ = envs.step(np.array([action]))
        observation, _, expected, _, _ = env.step(action)
        assert terminated[0] == expected
        if expected:
            observation, _ = env.reset()
        np.testing.assert_array_equal(observations[0], observation)


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_every_environment_follows_a_single_one(n: int, mode: AutoresetMode) -> None:
    num_envs, limit = 6, 25
    envs = CartPoleNDVectorEnv(num_envs, n, max_episode_steps=limit, autoreset_mode=mode)
    singles = [CartPoleNDEnv(n) for _ in range(num_envs)]
    envs.reset(seed=0)

    def follow(i: int) -> None:
        singles[i].reset(seed=0)
        singles[i].state = envs.state[..., i].copy()
        lengths[i] = 0

    lengths = [0] * num_envs
    for i in range(num_envs):
        follow(i)
    rng = np.random.default_rng(n)
    starting = [False] * num_envs  # next-step autoreset: this step only starts an episode
    ends = 0
    for _ in range(150):
        actions = rng.integers(2 * n, size=num_envs)
        observations, rewards, terminated, truncated, infos = envs.step(actions)
        for i in range(num_envs):
            if starting[i]:
                follow(i)
                assert rewards[i] == 0 and not terminated[i] and not truncated[i]
                assert np.abs(observations[i]).max() <= 0.05
                starting[i] = False
                continue
            expected, reward, failed, _, _ = singles[i].step(actions[i])
            lengths[i] += 1
            assert rewards[i] == reward == 1
            assert terminated[i] == failed
            assert truncated[i] == (lengths[i] == limit)
            done = terminated[i] or truncated[i]
            ends += done
            if mode is SAME_STEP and done:
                np.testing.assert_array_equal(infos["final_obs"][i], expected)
                follow(i)
                expected = envs.state[..., i].T.ravel().astype(np.float32)
                assert np.abs(expected).max() <= 0.05
            np.testing.assert_array_equal(observations[i], expected)
            starting[i] = mode is NEXT_STEP and done
    assert ends > num_envs


def test_same_step_info_is_that_of_sync_vector_env() -> None:
    ours = CartPoleNDVectorEnv(4, n=2, autoreset_mode="SameStep")
    sync = SyncVectorEnv([lambda: CartPoleNDEnv(2)] * 4, autoreset_mode="SameStep")
    start = {"low": 0.2, "high": 0.2}
    for envs in (ours, sync):
        envs.reset(seed=0)
    for i, env in enumerate(sync.envs):
        env.unwrapped.state = ours.state[..., i].copy()  # type: ignore[attr-defined]
    # Environments 1 and 3 are about to fall.
    for i in (1, 3):
        ours.state[2, 0, i] = start["low"] + 0.02
        sync.envs[i].unwrapped.state[2, 0] = start["low"] + 0.02  # type: ignore[attr-defined]
    actions = np.array([0, 1, 2, 3])
    got, expected = ours.step(actions)[4], sync.step(actions)[4]
    assert got.keys() == expected.keys()
    np.testing.assert_array_equal(got["_final_obs"], [False, True, False, True])
    np.testing.assert_array_equal(got["_final_info"], expected["_final_info"])
    assert got["final_info"] == expected["final_info"] == {}
    assert got["final_obs"].dtype == expected["final_obs"].dtype
    for i in (0, 2):
        assert got["final_obs"][i] is expected["final_obs"][i] is None
    for i in (1, 3):
        np.testing.assert_array_equal(got["final_obs"][i], expected["final_obs"][i])
    assert ours.step(actions * 0)[4] == {}


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP])
def test_a_balanced_episode_is_truncated_after_500_steps(mode: AutoresetMode) -> None:
    num_envs, n = 5, 2
    envs = gym.make_vec("CartPoleND-v0", num_envs=num_envs, n=n, autoreset_mode=mode.value)
    observations, _ = envs.reset(seed=0)
    weights = np.array([0.1, 0.4, 4.0, 1.0])
    for step in range(1, 503):
        urgency = observations.reshape(num_envs, n, 4) @ weights
        axis = np.abs(urgency).argmax(axis=1)
        actions = 2 * axis + (urgency[np.arange(num_envs), axis] > 0)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        assert not terminated.any()
        assert (truncated == (step == 500)).all()
        assert (rewards == (0 if step == 501 and mode is NEXT_STEP else 1)).all()


@pytest.mark.parametrize("mode", [NEXT_STEP, SAME_STEP])
def test_returned_arrays_do_not_change_later(mode: AutoresetMode) -> None:
    envs = CartPoleNDVectorEnv(8, n=2, max_episode_steps=5, autoreset_mode=mode)
    rng = np.random.default_rng(0)
    kept = [envs.reset(seed=0)[0]]
    copies = [kept[0].copy()]
    for _ in range(20):
        *arrays, infos = envs.step(rng.integers(4, size=8))
        arrays += [infos[key] for key in ("final_obs", "_final_obs", "_final_info") if key in infos]
        kept += arrays
        copies += copy.deepcopy(arrays)
    for array, original in zip(kept, copies, strict=True):
        assert array.dtype != object or any(row is not None for row in array)
        np.testing.assert_equal(array.tolist(), original.tolist())


def test_same_seed_same_episodes() -> None:
    def rollout(envs: CartPoleNDVectorEnv, seed: int) -> np.ndarray:
        rng = np.random.default_rng(0)
        observations = [envs.reset(seed=seed)[0]]
        observations += [envs.step(rng.integers(4, size=3))[0] for _ in range(60)]
        return np.stack(observations)

    envs = CartPoleNDVectorEnv(3, n=2)
    first = rollout(envs, 1)
    np.testing.assert_array_equal(first, rollout(envs, 1))  # nothing is left of the first episodes
    np.testing.assert_array_equal(first, rollout(CartPoleNDVectorEnv(3, n=2), 1))
    assert (first[0] != rollout(envs, 2)[0]).all()


def test_make_vec_uses_the_vector_env() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gym.make_vec("gym_taskdistill:CartPoleND-v0", num_envs=8, n=3)
    assert isinstance(envs, CartPoleNDVectorEnv)
    assert (envs.num_envs, envs.n, envs.max_episode_steps) == (8, 3, 500)
    observations, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observations)
    assert envs.single_observation_space == CartPoleNDEnv(3).observation_space
    assert envs.single_action_space == CartPoleNDEnv(3).action_space
    envs.step(envs.action_space.sample())
    envs.close()


def test_autoreset_mode_is_per_instance() -> None:
    same = CartPoleNDVectorEnv(autoreset_mode="SameStep")
    following = CartPoleNDVectorEnv()
    assert same.metadata["autoreset_mode"] is SAME_STEP
    assert following.metadata["autoreset_mode"] is NEXT_STEP


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_gymnasiums_episode_statistics_are_right(mode: str) -> None:
    envs = RecordEpisodeStatistics(CartPoleNDVectorEnv(4, max_episode_steps=10, autoreset_mode=mode))
    envs.reset(seed=0)
    seen = 0
    for step in range(40):
        *_, truncated, infos = envs.step(np.full(4, step % 2))
        seen += truncated.sum()
        if truncated.any():
            np.testing.assert_array_equal(infos["episode"]["l"][truncated], 10)
            np.testing.assert_array_equal(infos["episode"]["r"][truncated], 10)
    assert seen >= 12


def test_gymnasiums_info_wrapper_reads_the_final_observation() -> None:
    envs = DictInfoToList(CartPoleNDVectorEnv(2, max_episode_steps=1, autoreset_mode="SameStep"))
    envs.reset(seed=0)
    observations, *_, infos = envs.step(np.zeros(2, dtype=np.int64))
    for info, observation in zip(infos, observations, strict=True):
        assert info["final_obs"].shape == (4,)
        assert (info["final_obs"] != observation).all()


@pytest.mark.parametrize("name", ["num_envs", "n", "max_episode_steps"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (1.5, TypeError), ("3", TypeError), (True, TypeError)]
)
def test_bad_numbers(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"`{name}` must be"):
        CartPoleNDVectorEnv(**{name: value})


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, "Disabled", "same_step", None])
def test_bad_autoreset_mode(mode: Any) -> None:
    with pytest.raises(ValueError, match=r"`autoreset_mode` must be one of \['NextStep', 'SameS"):
        CartPoleNDVectorEnv(autoreset_mode=mode)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 1, 4], r"in \[0, 4\) for n=2 axes, got values from 0 to 4"),
        ([0, -1, 3], "got values from -1 to 3"),
        ([0, 1], r"shape \(3,\), one per environment; got shape \(2,\)"),
        ([[0, 1, 2]], r"got shape \(1, 3\)"),
        (1, r"got shape \(\)"),
        ([0.0, 1.0, 2.0], "of float64"),
    ],
)
def test_bad_actions(actions: Any, message: str) -> None:
    envs = CartPoleNDVectorEnv(3, n=2)
    envs.reset(seed=0)
    before = envs.state.copy()
    with pytest.raises(InvalidAction, match=message):
        envs.step(np.array(actions))
    np.testing.assert_array_equal(envs.state, before)


def test_bad_reset_option() -> None:
    with pytest.raises(ValueError, match="must not exceed"):
        CartPoleNDVectorEnv(2).reset(options={"low": 1, "high": 0})


def test_step_before_reset() -> None:
    with pytest.raises(ResetNeeded, match="Call `reset` before the first `step`"):
        CartPoleNDVectorEnv(2).step(np.zeros(2, dtype=np.int64))
