"""Columns that several processes step, beside SB3's vec-env that steps them one after the other."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from gym_taskdistill import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.processes import ProcessVecEnv, _Worker
from gym_taskdistill.tasks.record import as_task, task_in
from gym_taskdistill.tasks.task import Task
from gym_taskdistill.tasks.vec_env import own_spaces

CARTPOLE = Task("CartPole-v1")
N_ENVS = 5


def rolled(vec_env: VecEnv, n_steps: int) -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    """Play random actions; return all arrays and infos, without the times that Monitor tells."""
    rng = np.random.default_rng(0)
    arrays, infos = [vec_env.reset()], []
    for _ in range(n_steps):
        obs, rewards, dones, told = vec_env.step(rng.integers(0, 2, vec_env.num_envs))
        arrays += [obs, rewards, dones]
        infos += [{k: {**v, "t": 0} if k == "episode" else v for k, v in info.items()} for info in told]
    return arrays, infos


class Brittle(gym.Wrapper[Any, Any, Any, Any]):
    """Fails as its action says."""

    def step(self, action: Any) -> Any:
        if action == 7:
            raise TaskDistillError("seven.")
        if action == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.env.step(min(action, 1))


def brittle(first: int, n_envs: int) -> VecEnv:
    return make_vec_env(lambda: Brittle(gym.make("CartPole-v1").unwrapped), n_envs, start_index=first)


@pytest.fixture
def env() -> Iterator[ProcessVecEnv]:
    made = ProcessVecEnv(brittle, 3, 2)
    yield made
    made.close()


@pytest.mark.parametrize("n_jobs", [2, 3])
def test_any_number_of_processes_gives_what_one_gives(n_jobs: int) -> None:
    one, several = (CARTPOLE.make_vec_env(N_ENVS, seed=3, n_jobs=n) for n in (1, n_jobs))
    assert isinstance(one, DummyVecEnv)
    assert isinstance(several, ProcessVecEnv)
    assert several.observation_space == one.observation_space
    for seed in (None, 11):
        if seed is not None:
            for vec_env in (one, several):
                vec_env.seed(seed)
                vec_env.set_options({"low": -0.01, "high": 0.01})
        (arrays, infos), (expected, told) = rolled(several, 40), rolled(one, 40)
        for ours, theirs in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        assert [sorted(info) for info in infos] == [sorted(info) for info in told]
        assert [info.get("episode") for info in infos] == [info.get("episode") for info in told]
        assert sum("terminal_observation" in info for info in infos) > 3
    np.testing.assert_array_equal(several.action_space.sample(), one.action_space.sample())
    several.close()
    several.close()


def test_single_envs_answer_as_sb3s_do() -> None:
    one, several = (CARTPOLE.make_vec_env(N_ENVS, seed=3, n_jobs=n) for n in (1, 2))
    for vec_env in (one, several):
        vec_env.reset()
        vec_env.set_attr("mark", "x", indices=[4, 0])
        assert vec_env.get_attr("mark", indices=[0, 4]) == ["x", "x"]
        assert vec_env.get_attr("mark", indices=[-1, 0]) == ["x", "x"]
        assert not vec_env.has_attr("no_such_thing")
        with pytest.raises(AttributeError):
            vec_env.get_attr("mark", indices=2)
        assert vec_env.env_is_wrapped(TimeLimit) == vec_env.env_is_wrapped(Monitor) == [True] * N_ENVS
    for indices in (None, 3, [4, 1, 1]):
        states = [vec_env.get_attr("state", indices) for vec_env in (one, several)]
        np.testing.assert_array_equal(*states)
        ask = ("get_wrapper_attr", "np_random_seed")
        assert one.env_method(*ask, indices=indices) == several.env_method(*ask, indices=indices)
    several.close()


def test_an_error_in_an_env_is_raised_here(env: ProcessVecEnv) -> None:
    env.reset()
    with pytest.raises(TaskDistillError, match=r"^seven\.$"):
        env.step(np.array([0, 7, 7]))
    assert env.step(np.array([0, 1, 0]))[0].shape == (3, 4)  # each question has had its answer


def test_a_process_that_dies_is_told_and_not_used_again(env: ProcessVecEnv) -> None:
    env.reset()
    with pytest.raises(TaskDistillError, match="process that simulates environments has ended"):
        env.step(np.array([0, 0, 8]))
    env.close()
    again = ProcessVecEnv(brittle, 2, 2)
    assert again.reset().shape == (2, 4)
    again.close()


def test_processes_serve_one_vec_env_after_the_other() -> None:
    first = ProcessVecEnv(brittle, 2, 2)
    pids = {worker._process.pid for worker in first._workers}
    second = ProcessVecEnv(brittle, 2, 1)
    assert {worker._process.pid for worker in second._workers}.isdisjoint(pids)
    first.close()
    second.close()
    third = CARTPOLE.make_vec_env(8, n_jobs=3)
    assert isinstance(third, ProcessVecEnv)
    assert pids < {worker._process.pid for worker in third._workers}
    third.close()
    assert len(_Worker._idle) >= 3


def test_a_process_that_served_before_finds_what_can_be_imported_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ProcessVecEnv(brittle, 2, 2).close()
    (tmp_path / "found_since.py").write_text(
        "import gymnasium\n\nclass Passing(gymnasium.Wrapper):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    passing = importlib.import_module("found_since").Passing
    several = Task("Own", factory=lambda: passing(gym.make("CartPole-v1"))).make_vec_env(2, n_jobs=2)
    assert several.env_is_wrapped(passing) == [True, True]
    several.close()


def test_what_cannot_be_made_is_refused_as_without_processes() -> None:
    def fails(first: int, n_envs: int) -> VecEnv:
        raise TaskDistillError("It cannot be made.")

    with pytest.raises(TaskDistillError, match="It cannot be made"):
        ProcessVecEnv(fails, 4, 2)


def test_envs_of_a_function_with_spaces_that_are_not_flat() -> None:
    task = as_task(lambda: Brittle(gym.make("FrozenLake-v1", is_slippery=False)))
    one, several = (task.make_vec_env(2, seed=0, n_jobs=n) for n in (1, 2))
    for ours, theirs in zip(rolled(several, 5)[0], rolled(one, 5)[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert own_spaces(several) == own_spaces(one)
    assert task_in(several) == task_in(one)
    several.close()


def test_what_cannot_be_sent_is_refused() -> None:
    lock = threading.Lock()
    with pytest.raises(TaskDistillError, match=r"cannot be sent to other processes .*; use n_jobs=1"):
        Task("Own", factory=lambda: lock).make_vec_env(2, n_jobs=2)


def test_training_gives_the_same_dataset() -> None:
    digests = set()
    for n_jobs in (1, 2):
        vec_env = CARTPOLE.make_vec_env(4, n_jobs=n_jobs)
        model = PPMO("alpha_c", vec_env, n_learners=2, n_steps=32, batch_size=64, n_epochs=1, seed=0)
        model.learn(256)
        digests.add(model.dataset().digest)
        vec_env.close()
    assert len(digests) == 1


@pytest.mark.slow
def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import gymnasium as gym\n"
        "from gym_taskdistill.tasks import Task\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "class Own(CartPoleEnv): pass\n"
        "gym.register('Own-v0', Own)\n"
        "env = Task('Own-v0').make_vec_env(4, seed=0, n_jobs=2)\n"
        "print(type(env).__name__, env.reset().shape)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.split("\n")[0] == "ProcessVecEnv (4, 4)", done.stderr
    assert "Traceback" not in done.stderr


def test_daemons_simulate_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have no processes of their own."""
    monkeypatch.setattr("multiprocessing.process._current_process._config", {"daemon": True})
    assert isinstance(CARTPOLE.make_vec_env(2, n_jobs=2), DummyVecEnv)


def test_there_are_no_more_processes_than_columns() -> None:
    assert isinstance(CARTPOLE.make_vec_env(1, n_jobs=2), DummyVecEnv)
    env = ProcessVecEnv(brittle, 1, 2)
    assert len(env._workers) == 1
    env.close()
