"""Tasks: envs by their ids, single and vectorised, and clear errors."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.task import Task
from gym_taskdistill.tasks.vec_env import GymnasiumVecEnv

CARTPOLE_2D = Task("CartPoleND-v0", {"n": 2})
PONG, PONG_RAM = Task("PongNoFrameskip-v4"), Task("PongNoFrameskip-v4", {"obs_type": "ram"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "obs_shape", "actions"),
    [
        (CARTPOLE_2D, (8,), spaces.Discrete(4)),
        (Task("gym_taskdistill:CartPoleND-v0"), (4,), spaces.Discrete(2)),
        (Task("CartPole-v1"), (4,), spaces.Discrete(2)),
        (Task("Pendulum-v1", {"g": 5.0}), (3,), spaces.Box(-2, 2, (1,))),
        (PONG, (4, 84, 84), spaces.Discrete(6)),
        (PONG_RAM, (128,), spaces.Discrete(6)),
        (Task("PongNoFrameskip-v4", {"obs_type": "bits"}), (1024,), spaces.Discrete(6)),
        (Task("ale_py:ALE/Pong-v5", {"full_action_space": True}), (4, 84, 84), spaces.Discrete(18)),
    ],
    ids=str,
)
def test_spaces_and_envs(task: Task, obs_shape: tuple[int, ...], actions: gym.Space) -> None:
    if len(obs_shape) == 3:
        pytest.importorskip("cv2")
    assert task.observation_space.shape == obs_shape
    assert task.action_space == actions
    env, vec_env = task.make_env(), task.make_vec_env(3)
    assert isinstance(vec_env, VecEnv)
    assert vec_env.num_envs == 3
    for made in (env, vec_env):
        assert made.observation_space == task.observation_space
        assert made.action_space == task.action_space
    vec_env.close()


def test_arguments_reach_the_env() -> None:
    assert Task("Pendulum-v1", {"g": 5.0}).make_env().unwrapped.g == 5.0
    assert Task("Pendulum-v1", {"g": 5.0}).make_vec_env(2).get_attr("g") == [5.0, 5.0]
    assert CARTPOLE_2D.make_env().unwrapped.n == 2
    assert CARTPOLE_2D.make_vec_env(2).get_attr("n") == [2, 2]


def test_it_reads_as_its_id_with_arguments() -> None:
    assert str(CARTPOLE_2D) == "CartPoleND-v0 n=2"
    assert str(Task("CartPole-v1")) == "CartPole-v1"


def test_equal_tasks_are_equal() -> None:
    assert Task("CartPoleND-v0", {"n": 2}) == CARTPOLE_2D
    assert Task("CartPoleND-v0", {"n": 3}) != CARTPOLE_2D


def test_our_own_envs_are_vectorised_natively_and_others_by_sb3() -> None:
    assert CARTPOLE_2D.is_vectorised
    assert Task("gym_taskdistill:CartPoleND-v0").is_vectorised
    native = CARTPOLE_2D.make_vec_env(2)
    assert isinstance(native, VecMonitor)
    assert isinstance(native.venv, GymnasiumVecEnv)
    # Gymnasium's own CartPole has a vector env too, but not one that resets in the same step.
    assert not Task("CartPole-v1").is_vectorised
    assert isinstance(Task("CartPole-v1").make_vec_env(2), DummyVecEnv)
    # ALE's vector env does so, but shows only pixels.
    assert PONG.is_vectorised
    assert Task("ALE/Pong-v5", {"obs_type": "pixels"}).is_vectorised
    assert not PONG_RAM.is_vectorised
    assert isinstance(PONG_RAM.make_vec_env(1), DummyVecEnv)


@pytest.mark.slow
def test_the_vector_env_of_atari_pixels_needs_no_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    task = Task("PongNoFrameskip-v4")
    assert task.observation_space.shape == (4, 84, 84)
    assert task.make_vec_env(1).reset().shape == (1, 4, 84, 84)
    with pytest.raises(TaskDistillError, match=r"gym-taskdistill\[atari\]"):
        task.make_env()


@pytest.mark.slow
@pytest.mark.parametrize("task", [PONG, PONG_RAM, Task("ale_py:ALE/Pong-v5", {"noop_max": 1})], ids=str)
def test_the_spec_of_an_atari_game_makes_the_task_again(task: Task) -> None:
    vec_env = task.make_vec_env(2, training=True)
    specs = vec_env.get_attr("spec")
    if task is PONG:
        specs.append(Task(task.env_id, {"obs_type": "pixels"}).make_vec_env(1).get_attr("spec")[0])
    for spec in specs:
        assert spec.id == task.env_id.rpartition(":")[2]
        assert spec.kwargs == task.env_kwargs
    if task is PONG_RAM:
        single = task.make_env(render_mode="rgb_array").spec
        assert single is not None
        assert (single.id, single.kwargs) == (task.env_id, {"obs_type": "ram", "render_mode": "rgb_array"})


def test_a_vec_env_tells_its_spec_and_leaves_the_registry_alone() -> None:
    (spec, _) = CARTPOLE_2D.make_vec_env(2).get_attr("spec")
    assert (spec.id, spec.kwargs) == ("CartPoleND-v0", {"n": 2})
    assert gym.spec("CartPoleND-v0").kwargs == {}
    assert CARTPOLE_2D.spec.kwargs == {}
    (spec, _) = Task("Pendulum-v1", {"g": 5.0}).make_vec_env(2).get_attr("spec")
    assert (spec.id, spec.kwargs["g"]) == ("Pendulum-v1", 5.0)


@pytest.mark.parametrize("task", [CARTPOLE_2D, Task("CartPole-v1")], ids=str)
def test_vec_envs_count_episodes_and_obey_seeds(task: Task) -> None:
    def play(seed: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
        vec_env = task.make_vec_env(3, seed=seed)
        start, episodes = vec_env.reset(), []
        for _ in range(60):
            _, _, dones, infos = vec_env.step(np.zeros(3, dtype=int))
            assert [("episode" in info) for info in infos] == dones.tolist()
            episodes += [info["episode"] for info in infos if "episode" in info]
        return start, episodes

    (first, episodes), (again, _), (other, _) = play(1), play(1), play(2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(episodes) >= 9
    assert all(episode["r"] == episode["l"] >= 8 for episode in episodes)


def test_the_time_limit_is_the_registrations() -> None:
    vec_env = CARTPOLE_2D.make_vec_env(2)
    assert vec_env.get_attr("max_episode_steps") == [500, 500]


def test_the_time_limit_may_be_an_argument() -> None:
    for env_id in ("CartPole-v1", "CartPoleND-v0"):
        vec_env = Task(env_id, {"max_episode_steps": 5}).make_vec_env(2)
        vec_env.reset()
        for step in range(1, 6):
            _, _, dones, infos = vec_env.step(np.array([step % 2] * 2))
            assert dones.all() == (step == 5)
        assert all(info["TimeLimit.truncated"] for info in infos)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPolND-v0", r'There is no env "CartPolND-v0".*Did you mean "CartPoleND-v0"\?'),
        ("CartPoleND-v7", r'There is no env "CartPoleND-v7"'),
        ("", 'There is no env ""'),
        ("ALE/Pang-v5", r'There is no env "ALE/Pang-v5".*Did you mean "ALE/Pong-v5"\?'),
        ("PongNoFrameskip-v5", r'There is no env "PongNoFrameskip-v5"'),
        ("Pong-v4", "Pong-v4 skips a random number of frames"),
        ("no_such_module:CartPole-v1", 'names code, "no_such_module"'),
        pytest.param(
            "Hopper-v3",
            "Hopper-v3.*cannot be made",
            marks=pytest.mark.filterwarnings("ignore:.*is out of date"),
        ),
    ],
)
def test_an_env_that_does_not_exist_is_refused(env_id: str, message: str) -> None:
    task = Task(env_id)
    for use in (task.make_env, lambda: task.action_space, lambda: task.make_vec_env(2)):
        with pytest.raises(TaskDistillError, match=message):
            use()


@pytest.mark.parametrize("task", [Task("CartPole-v1", {"m": 2}), Task("CartPoleND-v0", {"m": 2})], ids=str)
def test_an_unknown_argument_is_refused(task: Task) -> None:
    for use in (task.make_env, lambda: task.make_vec_env(2)):
        with pytest.raises(TaskDistillError, match=rf"^{task} cannot be made: .*'m'"):
            use()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"obs_type": "rgb"}, 'There is no obs_type "rgb"; use pixels, ram or bits'),
        ({"frameskip": 1}, 'PongNoFrameskip-v4 has no argument "frameskip"; known are obs_type'),
        ({"obs_type": "ram", "noop_max": "many"}, "noop_max of PongNoFrameskip-v4 must be a whole number"),
    ],
)
def test_a_wrong_argument_of_an_atari_game_is_refused(kwargs: dict[str, Any], message: str) -> None:
    task = Task("PongNoFrameskip-v4", kwargs)
    for use in (task.make_env, lambda: task.make_vec_env(2), lambda: task.observation_space):
        with pytest.raises(TaskDistillError, match=message):
            use()
    with pytest.raises(TaskDistillError, match="EnvPool has no faithful copy of PongNoFrameskip-v4"):
        task.make_vec_env(2, backend="envpool")


@pytest.mark.parametrize("task", [PONG, PONG_RAM], ids=str)
def test_a_missing_rom_is_named(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(TaskDistillError, match="ROM of PongNoFrameskip-v4 cannot be read: "):
        task.make_vec_env(1)


def test_a_wrong_argument_is_refused() -> None:
    task = Task("CartPoleND-v0", {"n": 0})
    for use in (task.make_env, lambda: task.make_vec_env(2)):
        with pytest.raises(TaskDistillError, match=r"CartPoleND-v0 n=0 cannot be made: .*at least 1"):
            use()


def test_an_env_renders_if_asked() -> None:
    pytest.importorskip("pygame")
    env = CARTPOLE_2D.make_env(render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    assert frame.dtype == np.uint8
    env.close()


def test_an_older_version_is_meant_and_not_warned_of() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Task("InvertedPendulum-v4").make_vec_env(2).close()
    assert not [w for w in caught if "out of date" in str(w.message)]
