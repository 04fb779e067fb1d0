"""What an environment is, written down, and made again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from random_env import Negated, RandomEnv, Scaled
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack, VecNormalize

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks import Task, as_task, task_in

Make = Callable[[], gym.Env]


def pendulum(**kwargs: Any) -> gym.Env:
    return gym.make("Pendulum-v1", **kwargs)


RECORDED: list[tuple[Make, str]] = [
    (pendulum, "Pendulum-v1"),
    (lambda: pendulum(g=5.0, max_episode_steps=5), "Pendulum-v1 g=5.0 max_episode_steps=5"),
    (lambda: wrappers.TimeLimit(pendulum(max_episode_steps=-1), 7), "Pendulum-v1 max_episode_steps=7"),
    (lambda: pendulum(max_episode_steps=-1), "Pendulum-v1 max_episode_steps=-1"),
    (lambda: Scaled(pendulum(), np.float32(2)), "Pendulum-v1 +Scaled"),
    (lambda: wrappers.RescaleAction(Scaled(pendulum()), -1, 1), "Pendulum-v1 +Scaled +RescaleAction"),
    (lambda: wrappers.FlattenObservation(gym.make("FrozenLake-v1")), "FrozenLake-v1 +FlattenObservation"),
]


@pytest.mark.parametrize(("make", "name"), RECORDED, ids=[name for _, name in RECORDED])
def test_an_env_is_recorded_and_made_again(make: Make, name: str) -> None:
    task = as_task(make)
    assert str(task) == name and not task.unrecorded
    assert task_in(VecNormalize(make_vec_env(make, 1), norm_obs=False)) == task
    again, env = Task(task.env_id, task.env_kwargs, task.wrappers).make_env(), make()
    assert again.action_space == env.action_space
    np.testing.assert_array_equal(again.reset(seed=3)[0], env.reset(seed=3)[0])
    env.action_space.seed(0)
    for _ in range(8):
        action = env.action_space.sample()
        one, other = env.step(action), again.step(action)
        np.testing.assert_allclose(one[0], other[0])
        assert one[1:4] == other[1:4]
        if one[2] or one[3]:
            break


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (RandomEnv, "not registered"),
        (lambda: Negated(pendulum()), "Negated does not record its arguments"),
        (lambda: wrappers.TransformReward(pendulum(), lambda r: r), "TransformReward the argument func"),
        (
            lambda: wrappers.RescaleAction(pendulum(), np.full(1, -1, np.float32), 1),
            "RescaleAction the argument min_action",
        ),
        (lambda: wrappers.NormalizeObservation(pendulum()), "use SB3's VecNormalize"),
        (lambda: gym.make("ale_py:ALE/Pong-v5"), "tasks preprocess Atari games"),
    ],
)
def test_what_cannot_be_recorded_needs_the_function(make: Make, reason: str) -> None:
    for task in (as_task(make), task_in(make_vec_env(make, 1))):
        assert reason in task.unrecorded
    bare = Task(task.env_id, unrecorded=task.unrecorded)
    for use in (bare.make_env, lambda: bare.make_vec_env(1), lambda: bare.observation_space):
        with pytest.raises(TaskDistillError, match=r"give the environment as a function that makes it"):
            use()
    assert as_task(make).make_env().observation_space == make().observation_space


def test_arguments_that_are_no_plain_data_are_not_recorded() -> None:
    gym.register("Random-v0", RandomEnv, max_episode_steps=9)
    try:
        task = as_task(lambda: gym.make("Random-v0", never_ends=np.arange(3)))
        assert (task.env_id, "never_ends" in task.unrecorded) == ("Random-v0", True)
        assert as_task(lambda: gym.make("Random-v0")) == Task("Random-v0")
    finally:
        del gym.registry["Random-v0"]


def test_a_wrapper_around_the_vec_env_is_named() -> None:
    task = task_in(VecFrameStack(make_vec_env("Pendulum-v1", 2), 2))
    assert (task.env_id, task.unrecorded) == ("Pendulum-v1", "VecFrameStack is around its copies")


def test_a_registration_that_cannot_be_sent_harms_no_worker() -> None:
    def make() -> gym.Env:
        return wrappers.TransformReward(gym.make("CartPole-v1"), lambda reward: reward)

    env = SubprocVecEnv([make], start_method="fork")
    try:
        task = task_in(env)
        assert task.env_id == "CartPole-v1" and "between processes" in task.unrecorded
        env.reset()
        assert env.step(np.zeros(1, dtype=np.int64))[1] == [1.0]
    finally:
        env.close()


def test_a_card_runs_no_code_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only wrappers, and only of modules that the user has imported."""
    monkeypatch.delitem(sys.modules, "this", raising=False)
    for entry_point, message in (
        ("this:Wrapper", 'names code, "this", which is not run unasked'),
        ("os:system", "There is no wrapper system in os"),
        ("gymnasium.wrappers.rendering:RecordVideo", "no part of a task"),
    ):
        task = Task("CartPole-v1", wrappers=({"entry_point": entry_point, "kwargs": {}},))
        with pytest.raises(TaskDistillError, match=message):
            task.make_env()
    assert "this" not in sys.modules


@pytest.mark.parametrize("wrong", [3, None, lambda: 3, pendulum()])
def test_what_makes_no_env_is_refused(wrong: Any) -> None:
    with pytest.raises(TaskDistillError, match="function that makes the|must return a gymnasium environment"):
        as_task(wrong)


def test_a_function_is_asked_for_the_render_mode_if_it_takes_one() -> None:
    assert as_task(RandomEnv).make_env("rgb_array").render_mode == "rgb_array"
    with pytest.raises(TaskDistillError, match=r"must take render_mode"):
        as_task(lambda: RandomEnv()).make_env("rgb_array")


def test_episodes_without_an_end_are_cut_off_where_that_is_asked_for() -> None:
    task = as_task(lambda: RandomEnv(never_ends=True))
    env = task.make_vec_env(1, step_cap=4)
    env.reset()
    dones = [bool(env.step(np.zeros(1, dtype=np.int64))[2][0]) for _ in range(8)]
    assert dones == [False, False, False, True] * 2
    # A time limit of the env's own is left alone.
    limited = as_task(lambda: wrappers.TimeLimit(RandomEnv(never_ends=True), 6)).make_vec_env(1, step_cap=4)
    limited.reset()
    assert [bool(limited.step(np.zeros(1, dtype=np.int64))[2][0]) for _ in range(6)] == [False] * 5 + [True]
