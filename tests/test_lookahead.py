"""Experts that look ahead: emulators that are copied, and what is found in them."""

from __future__ import annotations

import numpy as np
import pytest
from ale_py import ALEState
from stable_baselines3.common.vec_env import VecEnv

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.imitation import Expert, one_action, record, recording_env
from gym_taskdistill.lookahead import Lookahead, states
from gym_taskdistill.tasks import Task

PIXELS = Task("SpaceInvadersNoFrameskip-v4")
BITS = Task("SpaceInvadersNoFrameskip-v4", {"obs_type": "bits"})
NOOP, RIGHTFIRE = 0, 4
IDLE = one_action(NOOP, PIXELS.action_space)


@pytest.fixture
def env() -> VecEnv:
    env, view = recording_env(PIXELS, 2, BITS, looks_ahead=True)
    assert view is states
    env.seed(0)
    env.reset()
    return env


def first_loss(env: VecEnv, expert: Expert, n: int) -> int:
    """Return after how many steps an expert's likeliest actions lose a life in the first env; at most n."""
    for step in range(n):
        _, _, _, infos = env.step(expert(states(env, np.empty(0))).argmax(1))
        if infos[0]["lives"] < 3:
            return step
    return n


def without_looking(states: list[ALEState]) -> np.ndarray:
    return IDLE(np.empty(len(states)))


def test_it_lives_longer_than_its_policy(env: VecEnv) -> None:
    steps = first_loss(env, without_looking, 1000)
    assert 100 < steps < 500  # who never moves is hit
    env.seed(0)
    env.reset()
    assert first_loss(env, Lookahead(IDLE, BITS), 1000) > steps + 50


def test_it_leaves_the_policy_only_where_that_loses(env: VecEnv) -> None:
    look = Lookahead(IDLE, BITS, steps=60, margin=2.0)
    (own,) = IDLE(np.empty(1))
    for _ in range(400):
        ahead = states(env, np.empty(0))
        (logits, _) = look(ahead)
        if not np.array_equal(logits, own):
            break
        env.step(np.full(2, NOOP))
    else:
        raise AssertionError("It never left the policy.")
    planned = logits.argmax()
    assert planned != NOOP
    assert logits[planned] == own.max() + 2.0
    np.testing.assert_array_equal(np.delete(logits, planned), np.delete(own, planned))
    # A fresh one sees the same there; a nearer look does not reach so far.
    np.testing.assert_array_equal(Lookahead(IDLE, BITS, steps=60, margin=2.0)(ahead)[0], logits)
    np.testing.assert_array_equal(Lookahead(IDLE, BITS, steps=10)(ahead)[0], own)
    # What it foresaw comes about.
    assert first_loss(env, without_looking, 70) < 60


def test_lost_points_count_as_lives_do() -> None:
    task = Task("PongNoFrameskip-v4")
    ram = Task("PongNoFrameskip-v4", {"obs_type": "ram"})
    idle = one_action(NOOP, task.action_space)
    env, _ = recording_env(task, 1, ram, looks_ahead=True)
    env.seed(0)
    env.reset()
    look = Lookahead(idle, ram, steps=80)
    lost = [0.0, 0.0]
    for i, expert in enumerate([lambda _: idle(np.empty(1)), look]):
        env.seed(0)
        env.reset()
        for _ in range(200):
            _, rewards, _, _ = env.step(expert(states(env, np.empty(0))).argmax(1))
            lost[i] -= min(rewards[0], 0.0)
    assert lost[0] >= 2
    assert lost[1] < lost[0]


def test_who_leaves_the_plan_gets_another(env: VecEnv) -> None:
    look = Lookahead(IDLE, BITS, steps=10)
    for _ in range(100):
        here = states(env, np.empty(0))
        look(here)
        env.step(np.full(2, RIGHTFIRE))
    here = states(env, np.empty(0))
    np.testing.assert_array_equal(look(here), Lookahead(IDLE, BITS, steps=10)(here))


def test_processes_share_the_states(env: VecEnv) -> None:
    here: list[ALEState] = states(env, np.empty(0))
    alone = Lookahead(IDLE, BITS, steps=10)(here)
    together = Lookahead(IDLE, BITS, steps=10, n_processes=2)
    try:
        np.testing.assert_array_equal(together(here), alone)
    finally:
        together.close()


def test_it_teaches_pixels(env: VecEnv) -> None:
    recording = record(Lookahead(IDLE, BITS, steps=3), env, 8, view=states)
    assert recording.observations.shape == (8, 4, 84, 84)
    assert recording.targets.shape == (8, 6)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (PIXELS, {}, "play an Atari game by its RAM"),
        (Task("CartPoleND-v0"), {}, "play an Atari game by its RAM"),
        (None, {}, "an unknown task"),
        (BITS, {"steps": 0}, "steps of a lookahead"),
        (BITS, {"holds": []}, "holds of a lookahead"),
        (BITS, {"holds": [0, 3]}, "holds of a lookahead"),
        (BITS, {"holds": 4}, "holds of a lookahead"),
        (BITS, {"margin": 0.0}, "margin of a lookahead"),
    ],
)
def test_what_cannot_look_ahead_is_refused(task: Task | None, settings: dict, message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        Lookahead(IDLE, task, **settings)


def test_a_policy_of_another_shape_is_refused(env: VecEnv) -> None:
    look = Lookahead(lambda obs: np.zeros((len(obs), 4)), BITS)
    with pytest.raises(TaskDistillError, match="outputs of shape"):
        look(states(env, np.empty(0)))
