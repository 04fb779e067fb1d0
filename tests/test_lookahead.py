"""Experts that look ahead: emulators that are copied, and what is found in them."""

from __future__ import annotations

import numpy as np
import pytest
from ale_py import ALEState
from stable_baselines3.common.vec_env import VecEnv

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.imitation import one_action, record, recording_env
from gym_taskdistill.lookahead import Lookahead, states
from gym_taskdistill.tasks import Task

PIXELS = Task("SpaceInvadersNoFrameskip-v4")
BITS = Task("SpaceInvadersNoFrameskip-v4", {"obs_type": "bits"})
NOOP, FIRE, LEFT, RIGHTFIRE = 0, 1, 3, 4
IDLE, SHOOTS = (one_action(action, PIXELS.action_space) for action in (NOOP, FIRE))


@pytest.fixture
def env() -> VecEnv:
    env, view = recording_env(PIXELS, 2, BITS, looks_ahead=True)
    assert view is states
    env.seed(0)
    env.reset()
    return env


def play(env: VecEnv, action: int, n: int) -> np.ndarray:
    """Return the rewards of an action, always, ``(n, 2)``."""
    return np.stack([env.step(np.full(env.num_envs, action))[1] for _ in range(n)])


def test_what_it_foresees_is_what_happens(env: VecEnv) -> None:
    play(env, RIGHTFIRE, 75)
    found = Lookahead(SHOOTS, BITS, steps=40, gamma=0.9).values(states(env, np.empty(0)))
    assert found.shape == (2, 6)
    rewards = np.concatenate([play(env, LEFT, 1), play(env, FIRE, 39)])
    expected = 0.9 ** np.arange(40) @ rewards
    np.testing.assert_allclose(found[:, LEFT], expected)
    assert (expected > 0).all() and (found[:, LEFT] != found[:, NOOP]).any()


def test_a_lost_life_costs_and_ends_what_is_seen(env: VecEnv) -> None:
    for _ in range(2000):  # who never moves is hit
        before = states(env, np.empty(0))
        _, _, _, infos = env.step(np.full(2, NOOP))
        if infos[0]["lives"] < 3:
            break
    else:
        raise AssertionError("No life was lost.")
    (values,) = Lookahead(IDLE, BITS, steps=5, gamma=0.5, life=100.0).values(before[:1])
    assert values[NOOP] == -100.0
    (later,) = Lookahead(IDLE, BITS, steps=5, gamma=0.5, life=0.0).values(before[:1])
    assert later[NOOP] == 0.0


def test_it_leaves_the_policy_for_points_alone(env: VecEnv) -> None:
    look = Lookahead(SHOOTS, BITS, steps=40, temperature=2.0)
    play(env, RIGHTFIRE, 75)
    here = states(env, np.empty(0))
    values = look.values(here)
    own = SHOOTS(np.empty(2))
    own = own - np.log(np.exp(own).sum(1, keepdims=True))
    np.testing.assert_allclose(look(here), own + values / 2.0, rtol=1e-5)


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
        (BITS, {"temperature": 0.0}, "temperature of a lookahead"),
    ],
)
def test_what_cannot_look_ahead_is_refused(task: Task | None, settings: dict, message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        Lookahead(IDLE, task, **settings)


def test_a_policy_of_another_shape_is_refused(env: VecEnv) -> None:
    look = Lookahead(lambda obs: np.zeros((len(obs), 4)), BITS)
    with pytest.raises(TaskDistillError, match="outputs of shape"):
        look(states(env, np.empty(0)))
