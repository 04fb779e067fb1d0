"""EnvPool's copies of the MuJoCo envs against gymnasium's, and the adapter to SB3 vec-envs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecEnv

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.task import ENVPOOL_TASKS, Task

pytest.importorskip("envpool")
pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date")


def roll(vec_env: VecEnv, n_steps: int) -> dict[str, np.ndarray]:
    """Play random actions, the same for every backend, and keep what a learner would see."""
    rng = np.random.default_rng(0)
    low, high = vec_env.action_space.low, vec_env.action_space.high  # type: ignore[attr-defined]
    kept: dict[str, list[Any]] = {"obs": [vec_env.reset()], "rewards": [], "lengths": [], "terminal": []}
    for _ in range(n_steps):
        actions = rng.uniform(low, high, (vec_env.num_envs, *low.shape))
        obs, rewards, _, infos = vec_env.step(actions)
        kept["obs"].append(obs)
        kept["rewards"].append(rewards)
        for info in infos:
            if "episode" in info:
                kept["lengths"].append(info["episode"]["l"])
                kept["terminal"].append(info["terminal_observation"])
    vec_env.close()
    return {name: np.array(values, dtype=np.float64) for name, values in kept.items()}


def errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return how far the means of two samples lie apart, in standard errors of their difference."""
    spread = np.sqrt(a.var(axis=0) / len(a) + b.var(axis=0) / len(b))
    distances: np.ndarray = np.abs(a.mean(axis=0) - b.mean(axis=0)) / (spread + 1e-3)
    return distances


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ENVPOOL_TASKS)
def test_a_pool_has_the_distributions_of_the_official_env(
    env_id: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs into the working folder
    task = Task(env_id)
    n_envs, n_steps = 24, 60
    ours, official = (
        roll(task.make_vec_env(n_envs, seed=1, backend=backend), n_steps)
        for backend in ("envpool", "gymnasium")
    )
    # Columns are independent, steps are not: compare sums and means over whole columns.
    assert errors(ours["rewards"].sum(0), official["rewards"].sum(0)) < 5
    magnitudes = [np.abs(rolled["obs"]).mean(0) for rolled in (ours, official)]
    assert errors(*magnitudes).max() < 6
    if "Humanoid" in env_id:
        forces = slice(-84, None) if env_id.endswith("-v4") else slice(-78, None)
        assert magnitudes[0][:, forces].max() > 0.1
    if len(official["lengths"]) > n_envs:
        assert errors(ours["lengths"], official["lengths"]) < 5
        assert errors(np.abs(ours["terminal"]), np.abs(official["terminal"])).max() < 6


def test_the_end_of_an_episode_is_sb3s() -> None:
    vec_env = Task("Hopper-v4").make_vec_env(3, seed=0, backend="envpool")
    obs = vec_env.reset()
    ends = 0
    for _ in range(80):
        before = obs
        obs, _, dones, infos = vec_env.step(np.ones((3, 3)))
        assert isinstance(obs, np.ndarray) and isinstance(before, np.ndarray)
        for i in np.flatnonzero(dones):
            terminal = infos[i]["terminal_observation"]
            assert not infos[i]["TimeLimit.truncated"]
            # One step on from the observation before it, which the pool has not overwritten; fallen.
            assert np.abs(terminal[:5] - before[i, :5]).max() < 0.2
            assert terminal[0] < 0.75 or abs(terminal[1]) > 0.15
            # The new one stands at 1.25 m.
            assert obs[i, 0] == pytest.approx(1.25, abs=0.006)
            assert not np.allclose(terminal, obs[i])
            assert infos[i]["episode"]["l"] > 5
            ends += 1
    assert ends >= 3
    vec_env.close()


def test_a_time_limit_is_told_from_a_fall() -> None:
    vec_env = Task("Reacher-v4").make_vec_env(2, seed=0, backend="envpool")
    vec_env.reset()
    for step in range(1, 51):
        _, _, dones, infos = vec_env.step(np.zeros((2, 2)))
        assert dones.all() == (step == 50)
    assert [info["TimeLimit.truncated"] for info in infos] == [True, True]
    assert [info["episode"]["l"] for info in infos] == [50, 50]
    # The step after a reset is a real one.
    _, rewards, dones, _ = vec_env.step(np.zeros((2, 2)))
    assert (rewards < 0).all() and not dones.any()
    vec_env.close()


def test_seeds_make_a_pool_anew() -> None:
    vec_env = Task("Hopper-v4").make_vec_env(2, seed=5, backend="envpool")
    first = vec_env.reset()
    second = vec_env.reset()
    assert not np.array_equal(first, second)
    vec_env.seed(5)
    np.testing.assert_array_equal(vec_env.reset(), first)
    vec_env.seed(6)
    assert not np.array_equal(vec_env.reset(), first)
    vec_env.close()


def test_its_spec_is_gymnasiums() -> None:
    vec_env = Task("Hopper-v5").make_vec_env(2, backend="auto")
    assert [spec.id for spec in vec_env.get_attr("spec")] == ["Hopper-v5"] * 2
    with pytest.raises(AttributeError, match="no attribute 'gravity'"):
        vec_env.get_attr("gravity")
    vec_env.close()


@pytest.mark.parametrize(
    "task", [Task("CartPole-v1"), Task("Hopper-v4", {"reset_noise_scale": 0.1})], ids=str
)
def test_other_tasks_are_refused_and_auto_avoids_it(task: Task) -> None:
    with pytest.raises(TaskDistillError, match="EnvPool has no faithful copy"):
        task.make_vec_env(2, backend="envpool")
    vec_env = task.make_vec_env(2, backend="auto")
    assert not hasattr(vec_env, "venv")
    vec_env.close()


def test_threads_change_nothing() -> None:
    """Pools return in the order of their columns, also where several end in the same step."""
    hopper = Task("Hopper-v4")
    one, *others = (
        roll(hopper.make_vec_env(24, seed=3, backend="envpool", n_jobs=n), 100) for n in (1, 2, 3)
    )
    assert len(one["lengths"]) > 24
    for several in others:
        for name, values in one.items():
            np.testing.assert_array_equal(several[name], values)
