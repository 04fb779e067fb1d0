"""Experts that look ahead: emulators that are copied, and what is found in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecEnv

from gym_taskdistill.distill.experts import Expert, act, one_action, record, recording_env
from gym_taskdistill.distill.lookahead import Lookahead, Snapshot, _Problem, snapshots
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.tasks.task import Task

PIXELS = Task("SpaceInvadersNoFrameskip-v4")
BITS = Task("SpaceInvadersNoFrameskip-v4", {"obs_type": "bits"})
N_ACTIONS = 6
IDLE = one_action(0, PIXELS.action_space)
RNG = np.random.default_rng(0)


def anything(observations: np.ndarray) -> np.ndarray:
    """Prefer no action."""
    return np.zeros((len(observations), N_ACTIONS), dtype=np.float32)


@pytest.fixture
def env() -> VecEnv:
    env, view = recording_env(PIXELS, 2, BITS, looks_ahead=True)
    assert view is snapshots
    return env


def play(env: VecEnv, expert: Expert, n: int) -> tuple[float, int]:
    """Return the points of the first env in n steps, and the lives that are left there."""
    env.seed(0)
    env.reset()
    points = 0.0
    for _ in range(n):
        _, rewards, _, infos = env.step(act(expert(snapshots(env, np.empty(0))), env.action_space, RNG))
        points += rewards[0]
    return points, infos[0]["lives"]


@pytest.mark.slow
def test_it_gains_more_than_its_policy_and_lives(env: VecEnv) -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
    points, lives = play(env, lambda here: anything(np.empty(len(here))), 300)
    assert lives < 3
    look = Lookahead(anything, BITS, n_futures=8, steps=60, replan_every=20)
    planned_points, planned_lives = play(env, look, 300)
    assert planned_lives == 3
    assert planned_points > points + 50


@pytest.mark.slow
def test_futures_are_selected_among_and_count_rewards_or_points(env: VecEnv) -> None:
    env.seed(0)
    env.reset()
    for _ in range(75):  # until there is something to see
        env.step(np.full(2, 4))
    here = snapshots(env, np.empty(0))[0]

    def found(n: int = 16, **settings: Any) -> tuple[float, float]:
        look = Lookahead(anything, BITS, n_futures=n, steps=160, replan_every=160, **settings)
        return look._best_future(_Problem(here, 0, n, [])).worth

    alone, selected = found(select_every=160), found(select_every=20)
    assert selected[0] == 160  # nothing is lost
    assert selected > alone
    points = found(select_every=20, clip_reward=False)
    assert points[1] >= 5 * selected[1]  # 5 to 30 for an invader


@pytest.mark.slow
def test_lost_points_count_as_lives_do() -> None:
    ram = Task("PongNoFrameskip-v4", {"obs_type": "ram"})
    env, _ = recording_env(Task("PongNoFrameskip-v4"), 1, ram, looks_ahead=True)
    assert play(env, lambda here: anything(np.empty(len(here))), 150)[0] < 0
    look = Lookahead(anything, ram, n_futures=16, steps=60, select_every=60, replan_every=30)
    assert play(env, look, 150)[0] >= 0


@pytest.mark.slow
def test_a_planned_action_leads_the_policys_own(env: VecEnv) -> None:
    own = np.arange(N_ACTIONS, dtype=np.float32)
    look = Lookahead(
        lambda obs: np.tile(own, (len(obs), 1)), BITS, n_futures=2, steps=4, replan_every=2, margin=3
    )
    env.seed(0)
    env.reset()
    for _ in range(75):  # until there is something to see: plans are remembered by the screen
        env.step(np.full(2, 4))
    leads = set()
    for _ in range(20):
        (logits, _) = look(snapshots(env, np.empty(0)))
        planned = int(logits.argmax())
        leads.add(planned)
        others = np.delete(own, planned)
        np.testing.assert_array_equal(np.delete(logits, planned), others)
        assert logits[planned] == max(own[planned], others.max() + 3)
        env.step(np.full(2, planned))
    assert len(leads) > 1


@pytest.mark.slow
def test_it_remembers_what_it_planned(env: VecEnv) -> None:
    asked: list[int] = []

    def policy(observations: np.ndarray) -> np.ndarray:
        asked.append(len(observations))
        return anything(observations)

    look = Lookahead(policy, BITS, n_futures=3, steps=10, replan_every=5)

    def first_plans(n: int) -> list[int]:
        env.seed(0)
        env.reset()
        for _ in range(75):  # until there is something to see: plans are remembered by the screen
            env.step(np.full(2, 4))
        plans = []
        for _ in range(n):
            here = snapshots(env, np.empty(0))
            del asked[:]
            actions = look(here).argmax(1)
            plans.append(len(asked) - 1)  # once for the logits
            # No plan depends on those before: an expert that has seen nothing yet plans the same.
            if len(plans) == 1:
                fresh = Lookahead(anything, BITS, n_futures=3, steps=10, replan_every=5)
                np.testing.assert_array_equal(fresh(here[::-1])[::-1].argmax(1), actions)
            env.step(actions)
        return plans

    assert [n > 0 for n in first_plans(11)] == [True, *[False] * 4] * 2 + [True]
    assert first_plans(11) == [0] * 11


@pytest.mark.slow
def test_processes_share_the_plans(env: VecEnv) -> None:
    env.seed(0)
    env.reset()
    here: list[Snapshot] = snapshots(env, np.empty(0))
    settings = {"n_futures": 2, "steps": 10, "replan_every": 5}
    alone = Lookahead(IDLE, BITS, **settings)(here)
    together = Lookahead(IDLE, BITS, n_processes=2, **settings)
    try:
        np.testing.assert_array_equal(together(here), alone)
    finally:
        together.close()


@pytest.mark.slow
def test_it_teaches_pixels(env: VecEnv) -> None:
    recording = record(Lookahead(IDLE, BITS, n_futures=2, steps=3, replan_every=3), env, 8, view=snapshots)
    assert recording.observations.shape == (8, 4, 84, 84)
    assert recording.targets.shape == (8, 6)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (PIXELS, {}, "play an Atari game by its RAM"),
        (Task("CartPoleND-v0"), {}, "play an Atari game by its RAM"),
        (None, {}, "an unknown task"),
        (BITS, {"steps": 0}, "steps of a lookahead"),
        (BITS, {"n_futures": 1.5}, "n_futures of a lookahead"),
        (BITS, {"select_every": 0}, "select_every of a lookahead"),
        (BITS, {"steps": 10}, "cannot plan 240"),
        (BITS, {"temperature": 0.0}, "temperature of a lookahead"),
        (BITS, {"margin": 0.0}, "margin of a lookahead"),
    ],
)
def test_what_cannot_look_ahead_is_refused(task: Task | None, settings: dict, message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        Lookahead(IDLE, task, **settings)


@pytest.mark.slow
def test_a_policy_of_another_shape_is_refused(env: VecEnv) -> None:
    look = Lookahead(lambda obs: np.zeros((len(obs), 4)), BITS)
    with pytest.raises(TaskDistillError, match="outputs of shape"):
        look(snapshots(env, np.empty(0)))
