"""Pictures: their form, what they show, and what is said when there can be none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.error import DependencyNotInstalled, ResetNeeded

import gym_taskdistill.envs
from gym_taskdistill.envs import CartPoleNDEnv, CartPoleNDVectorEnv
from gym_taskdistill.envs.rendering import AXIS_COLOURS, LIMIT

pygame = pytest.importorskip("pygame")


def picture(n: int, action: int | None = None) -> tuple[CartPoleNDEnv, np.ndarray]:
    env = CartPoleNDEnv(n, render_mode="rgb_array")
    env.reset(seed=0)
    if action is not None:
        env.step(action)
    frame = env.render()
    assert frame is not None
    return env, frame


def count(frame: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((frame == colour).all(axis=-1).sum())


def run_in_a_new_process(script: str) -> None:
    """Run `script` where nothing has been imported yet, from the folder that holds the package."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=Path(gym_taskdistill.envs.__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_a_frame_is_an_image_with_every_axis_in_its_colour(n: int) -> None:
    env, frame = picture(n, action=0)
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    assert frame.shape[0] % 2 == 0 and frame.shape[1] % 2 == 0  # video codecs ask for it
    for colour in AXIS_COLOURS[:n]:
        assert count(frame, colour) > 300  # its cart, at least
    for colour in AXIS_COLOURS[n:]:
        assert count(frame, colour) == 0
    assert (env.render() == frame).all()


def test_a_frame_is_fresh() -> None:
    env, frame = picture(2)
    kept = frame.copy()
    env.state[0] += 1.0
    assert (env.render() != kept).any()
    np.testing.assert_array_equal(frame, kept)


@pytest.mark.parametrize("n", [1, 2])
def test_the_push_is_shown(n: int) -> None:
    arrow = [count(picture(n, action)[1], LIMIT) for action in (None, 0, 1)]
    assert arrow[1] > arrow[0] + 50
    assert arrow[2] > arrow[0] + 50


def test_the_cart_is_drawn_where_it_is() -> None:
    def middle(x: float) -> float:
        env, _ = picture(1)
        env.state[0] = x
        frame = env.render()
        assert frame is not None
        body = frame[100:]  # below the legend
        return float(np.nonzero((body == AXIS_COLOURS[0]).all(axis=-1))[1].mean())

    left, centre, right = middle(-2.0), middle(0.0), middle(2.0)
    assert left < centre < right
    assert right - centre == pytest.approx(centre - left, abs=2)


@pytest.mark.slow
def test_rgb_array_opens_no_display() -> None:
    script = (
        "import pygame\n"
        "from gym_taskdistill.envs import CartPoleNDEnv\n"
        "env = CartPoleNDEnv(2, render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "assert env.render().any()\n"
        "assert not pygame.display.get_init()\n"
    )
    run_in_a_new_process(script)


@pytest.mark.slow
def test_importing_the_environments_leaves_pygame_alone() -> None:
    script = "import sys, gym_taskdistill.envs; assert 'pygame' not in sys.modules"
    run_in_a_new_process(script)


def test_human_mode_draws_by_itself_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gym.make("CartPoleND-v0", n=2, render_mode="human")
    env.reset(seed=0)
    window = pygame.display.get_surface()
    assert window is not None
    before = pygame.surfarray.array3d(window)
    env.step(3)
    assert (pygame.surfarray.array3d(window) != before).any()
    assert env.render() is None
    env.close()
    assert not pygame.display.get_init()
    env.close()


def test_another_environment_quitting_pygame_does_no_harm() -> None:
    env, frame = picture(2)
    other = CartPoleEnv(render_mode="rgb_array")
    other.reset(seed=0)
    other.render()
    other.close()  # quits all of pygame
    np.testing.assert_array_equal(env.render(), frame)


def test_a_vector_environment_gives_a_frame_each() -> None:
    envs = gym.make_vec("CartPoleND-v0", num_envs=3, n=2, render_mode="rgb_array")
    envs.reset(seed=0)
    envs.step(np.array([0, 1, 2]))
    frames = envs.render()
    assert isinstance(frames, tuple) and len(frames) == 3
    single = CartPoleNDEnv(2, render_mode="rgb_array")
    single.reset(seed=0)
    single.step(2)
    single.state = envs.unwrapped.state[..., 2].copy()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(frames[2], single.render())
    envs.close()


def test_no_push_is_shown_in_a_fresh_episode() -> None:
    envs = CartPoleNDVectorEnv(2, max_episode_steps=1, render_mode="rgb_array")
    envs.reset(seed=0)
    idle = count(envs.render()[0], LIMIT)  # type: ignore[index]
    envs.step(np.array([1, 1]))
    assert count(envs.render()[0], LIMIT) > idle  # type: ignore[index]
    envs.step(np.array([1, 1]))  # starts the next episode and ignores the action
    assert count(envs.render()[0], LIMIT) == pytest.approx(idle, abs=20)  # type: ignore[index]


@pytest.mark.parametrize("env_type", [CartPoleNDEnv, CartPoleNDVectorEnv])
def test_bad_render_mode(env_type: Any) -> None:
    with pytest.raises(ValueError, match=r"`render_mode` must be None or one of .*got 'ansi'"):
        env_type(render_mode="ansi")


@pytest.mark.parametrize("env_type", [CartPoleNDEnv, CartPoleNDVectorEnv])
def test_render_without_a_mode_warns(env_type: Any) -> None:
    env = env_type()
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="Nothing is rendered without a render mode"):
        assert env.render() is None


@pytest.mark.parametrize("env_type", [CartPoleNDEnv, CartPoleNDVectorEnv])
def test_render_before_reset(env_type: Any) -> None:
    with pytest.raises(ResetNeeded, match="Call `reset` before `render`"):
        env_type(render_mode="rgb_array").render()


def test_missing_pygame_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    env, _ = picture(1)
    env.close()
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(DependencyNotInstalled, match=r'pip install "gym-taskdistill\[video\]"'):
        env.render()
