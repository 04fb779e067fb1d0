"""The single environment: physics, episode logic, interface and messages."""

from __future__ import annotations

import copy
import importlib
import pickle
import re
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import gym_taskdistill.envs
from gym_taskdistill.envs import CartPoleNDEnv

PAST_TERMINATION = "ignore:.*terminated:UserWarning"


def balancing_action(observation: np.ndarray) -> int:
    """Push the axis that needs it most, towards where its pole falls."""
    urgency = observation.reshape(-1, 4) @ np.array([0.1, 0.4, 4.0, 1.0])
    axis = int(np.argmax(np.abs(urgency)))
    return 2 * axis + int(urgency[axis] > 0)


@pytest.mark.filterwarnings(PAST_TERMINATION)
@pytest.mark.parametrize("seed", range(20))
def test_one_axis_is_cartpole_v1_bit_for_bit(seed: int) -> None:
    ours, theirs = CartPoleNDEnv(), CartPoleEnv()
    actions = np.random.default_rng(seed).integers(2, size=120)  # well past termination
    for _ in range(2):  # the second episode continues the generator
        first, reference = ours.reset(seed=seed)[0], theirs.reset(seed=seed)[0]
        assert first.dtype == reference.dtype
        np.testing.assert_array_equal(first, reference)
        failed = False
        for action in actions:
            got, expected = ours.step(action), theirs.step(action)
            np.testing.assert_array_equal(got[0], expected[0])
            assert got[0].dtype == expected[0].dtype
            assert got[1:] == expected[1:]
            np.testing.assert_array_equal(ours.state[:, 0], theirs.state)
            failed |= got[2]
        assert failed
        np.testing.assert_array_equal(ours.reset()[0], theirs.reset()[0])


def test_spaces_of_one_axis_are_cartpoles() -> None:
    ours, theirs = CartPoleNDEnv(), CartPoleEnv()
    # Where CartPole-v1 has an infinite bound ours is the largest float: the checkers warn of infinities.
    largest = np.finfo(np.float32).max
    high = np.nan_to_num(theirs.observation_space.high, posinf=largest)
    np.testing.assert_array_equal(ours.observation_space.high, high)
    np.testing.assert_array_equal(ours.observation_space.low, -high)
    assert ours.observation_space.dtype == theirs.observation_space.dtype
    assert ours.action_space == theirs.action_space


def test_custom_start_bounds_draw_as_cartpole_v1() -> None:
    options = {"low": -0.2, "high": np.array(-0.1)}
    ours = CartPoleNDEnv().reset(seed=3, options=options)[0]
    np.testing.assert_array_equal(ours, CartPoleEnv().reset(seed=3, options=options)[0])
    assert (ours >= -0.2).all() and (ours <= -0.1).all()


def classic_step(quadruple: np.ndarray, force: float) -> np.ndarray:
    """The textbook equations (Florian 2007), written independently of the package."""
    _, v, theta, omega = quadruple
    m, mass, length = 0.1, 1.1, 0.5
    temp = (force + m * length * omega**2 * np.sin(theta)) / mass
    alpha = (9.8 * np.sin(theta) - np.cos(theta) * temp) / (length * (4 / 3 - m * np.cos(theta) ** 2 / mass))
    acceleration = temp - m * length * alpha * np.cos(theta) / mass
    return quadruple + 0.02 * np.array([v, acceleration, omega, alpha])


@pytest.mark.filterwarnings(PAST_TERMINATION)
def test_only_the_axis_acted_on_is_pushed() -> None:
    env = CartPoleNDEnv(n=3)
    env.reset(seed=1)
    rng = np.random.default_rng(1)
    for action in rng.integers(6, size=60).tolist():
        before = env.state.copy()
        observation = env.step(action)[0]
        for axis in range(3):
            force = (10.0 if action % 2 else -10.0) if axis == action // 2 else 0.0
            expected = classic_step(before[:, axis], force)
            np.testing.assert_allclose(env.state[:, axis], expected, rtol=1e-12, atol=1e-14)
            np.testing.assert_array_equal(
                observation[4 * axis : 4 * axis + 4], env.state[:, axis].astype(np.float32)
            )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("row", "value"), [(0, 2.41), (0, -2.41), (2, 0.22), (2, -0.22)])
def test_leaving_the_limits_on_any_axis_terminates(axis: int, row: int, value: float) -> None:
    env = CartPoleNDEnv(n=3)
    env.reset(seed=0)
    env.state[:] = 0.0
    assert not env.step(0)[2]
    env.state[row, axis] = value
    _, reward, terminated, truncated, _ = env.step(0)
    assert terminated and not truncated
    assert reward == 1.0


@pytest.mark.parametrize(("row", "value"), [(0, 2.39), (2, 0.2)])
def test_inside_the_limits_goes_on(row: int, value: float) -> None:
    env = CartPoleNDEnv(n=2)
    env.reset(seed=0)
    env.state[:] = 0.0
    env.state[row, 1] = value
    assert not env.step(0)[2]


def test_steps_after_the_end_warn_once_and_earn_nothing() -> None:
    env = CartPoleNDEnv(n=2)
    env.reset(seed=0, options={"low": 0.25, "high": 0.25})
    assert env.step(0)[1:3] == (1.0, True)
    with pytest.warns(UserWarning, match="call `reset` first"):
        assert env.step(0)[1] == 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert env.step(0)[1] == 0.0
        env.reset(seed=0)
        assert env.step(0)[1:3] == (1.0, False)


@pytest.mark.parametrize("n", [1, 2])
def test_a_balanced_episode_is_truncated_after_500_steps(n: int) -> None:
    env = gym.make("CartPoleND-v0", n=n)
    observation, _ = env.reset(seed=0)
    for step in range(1, 501):
        observation, reward, terminated, truncated, _ = env.step(balancing_action(observation))
        assert (reward, terminated, truncated) == (1.0, False, step == 500)


def test_same_seed_same_episode() -> None:
    def episode(seed: int) -> np.ndarray:
        env = CartPoleNDEnv(n=2)
        observations = [env.reset(seed=seed)[0]]
        observations += [env.step(action)[0] for action in (0, 3, 1, 2) * 2]
        return np.stack(observations)

    np.testing.assert_array_equal(episode(5), episode(5))
    assert (episode(5)[0] != episode(6)[0]).all()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_its_own_way(duplicate: Any) -> None:
    env = CartPoleNDEnv(n=2)
    env.reset(seed=0)
    twin = duplicate(env)
    expected = env.step(1)[0]
    np.testing.assert_array_equal(twin.step(1)[0], expected)
    twin.step(0)
    np.testing.assert_array_equal(env.state.T.ravel().astype(np.float32), expected)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("check", [gymnasium_check_env, sb3_check_env])
def test_checkers_pass(check: Any, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gym.make("CartPoleND-v0", n=n).unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(env)


def test_make_with_the_module_prefix() -> None:
    env = gym.make("gym_taskdistill:CartPoleND-v0", n=3)
    assert isinstance(env.unwrapped, CartPoleNDEnv)
    assert env.unwrapped.n == 3
    assert env.spec is not None
    assert (env.spec.max_episode_steps, env.spec.reward_threshold) == (500, 475)


def test_spec_survives_json() -> None:
    spec = gym.make("CartPoleND-v0", n=3).spec
    assert spec is not None
    again = EnvSpec.from_json(spec.to_json())
    assert again == spec
    assert gym.make(again).unwrapped.n == 3  # type: ignore[attr-defined]


def test_a_reload_registers_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(gym_taskdistill.envs)
    assert gym.spec("CartPoleND-v0").vector_entry_point is not None


@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-2, ValueError), (1.5, TypeError), ("3", TypeError), (True, TypeError)],
)
def test_bad_n(n: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"`n` must be .*at least 1.*got {re.escape(repr(n))}"):
        CartPoleNDEnv(n=n)


def test_numpy_n_is_an_int() -> None:
    assert type(CartPoleNDEnv(n=np.int64(2)).n) is int  # type: ignore[arg-type]


@pytest.mark.parametrize("action", [-1, 4, 1.0, "0", None, np.array([1]), np.float32(1)])
def test_bad_action(action: Any) -> None:
    env = CartPoleNDEnv(n=2)
    env.reset(seed=0)
    before = env.state.copy()
    with pytest.raises(InvalidAction, match=r"integer in \[0, 4\) for n=2 axes, got"):
        env.step(action)
    np.testing.assert_array_equal(env.state, before)


@pytest.mark.parametrize("action", [3, np.int64(3), np.uint8(3), np.array(3)])
def test_every_kind_of_integer_is_an_action(action: Any) -> None:
    env, reference = CartPoleNDEnv(n=2), CartPoleNDEnv(n=2)
    env.reset(seed=0), reference.reset(seed=0)
    np.testing.assert_array_equal(env.step(action)[0], reference.step(3)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.1, "high": 0.0}, r"'low' \(0.1\) must not exceed 'high' \(0.0\)"),
        ({"low": 0.1}, "must not exceed"),
        ({"low": "a"}, "'low' must be a number, got 'a'"),
        ({"high": None}, "'high' must be a number, got None"),
        ({"low": [0.0, 0.0]}, "'low' must be a number"),
        ({"low": np.zeros(2)}, "'low' must be a number"),
        ({"high": float("nan")}, "'high' must be finite"),
        ({"lo": 0.1}, "does not know the option 'lo'"),
    ],
)
def test_bad_reset_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CartPoleNDEnv().reset(options=options)


def test_step_before_reset() -> None:
    with pytest.raises(ResetNeeded, match="Call `reset` before the first `step`"):
        CartPoleNDEnv().step(0)
