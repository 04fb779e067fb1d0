"""Single Atari envs against the bare emulator, and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from ale_py import Action, ALEInterface, roms
from gymnasium.utils.env_checker import check_env

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.wrappers import make_atari_env


def emulator(game: str, noops: int = 0) -> ALEInterface:
    """Return a game just begun: FIRE, then no-ops."""
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", 0)  # by default actions stick
    ale.loadROM(roms.get_rom_path(game))
    ale.reset_game()
    for action in (Action.FIRE, *[Action.NOOP] * noops):
        ale.act(action)
    return ale


@pytest.mark.slow
def test_the_ram_is_the_emulators() -> None:
    env, ale = make_atari_env("BreakoutNoFrameskip-v4", obs_type="ram", noop_max=1), emulator("breakout")
    actions = ale.getMinimalActionSet()
    obs, info = env.reset(seed=0)
    np.testing.assert_array_equal(obs, ale.getRAM())
    assert info["lives"] == 5
    assert info["episode_frame_number"] == 1
    env.action_space.seed(0)
    total, terminated = 0.0, False
    while not terminated:
        action = env.action_space.sample()
        expected = sum(ale.act(actions[action]) for _ in range(4))
        obs, reward, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(obs, ale.getRAM())
        assert (obs.dtype, obs.shape) == (np.uint8, (128,))
        assert (reward, terminated, truncated) == (expected, ale.game_over(), False)
        assert info["lives"] == ale.lives()
        total += float(reward)
    assert total > 0
    assert info["lives"] == 0


@pytest.mark.slow
def test_bits_are_those_of_the_ram() -> None:
    bits, ram = (make_atari_env("SpaceInvadersNoFrameskip-v4", obs_type=kind) for kind in ("bits", "ram"))
    assert bits.observation_space == gym.spaces.Box(0, 1, (1024,), np.uint8)
    pairs = [(bits.reset(seed=3)[0], ram.reset(seed=3)[0])]
    pairs += [(bits.step(action)[0], ram.step(action)[0]) for action in (1, 2, 3, 4)]
    for seen, memory in pairs:
        assert bits.observation_space.contains(seen)
        np.testing.assert_array_equal(np.packbits(seen), memory)
    assert gym.make(bits.spec).observation_space == bits.observation_space


@pytest.mark.slow
def test_noops_follow_fire() -> None:
    obs, info = make_atari_env("BreakoutNoFrameskip-v4", obs_type="ram").reset(seed=0)
    noops = info["episode_frame_number"] - 1
    assert noops > 3  # the ball is under way
    np.testing.assert_array_equal(obs, emulator("breakout", noops).getRAM())


def test_pixels_are_the_larger_of_the_last_two_frames() -> None:
    cv2 = pytest.importorskip("cv2")
    env, ale = make_atari_env("BreakoutNoFrameskip-v4", noop_max=1), emulator("breakout")
    actions = ale.getMinimalActionSet()
    obs, _ = env.reset(seed=0)
    assert not obs[:3].any()
    frames = [cv2.resize(ale.getScreenGrayscale(), (84, 84), interpolation=cv2.INTER_AREA)]
    np.testing.assert_array_equal(obs[3], frames[0])
    for step in range(12):
        action = 1 + step % 3
        screens = []
        for _ in range(4):
            ale.act(actions[action])
            screens.append(ale.getScreenGrayscale())
        newest = np.maximum(screens[2], screens[3])
        frames.append(cv2.resize(newest, (84, 84), interpolation=cv2.INTER_AREA))
        obs, *_ = env.step(action)
        assert (obs.dtype, obs.shape) == (np.uint8, (4, 84, 84))
        recent = frames[-4:]
        np.testing.assert_array_equal(obs[4 - len(recent) :], recent)
    assert not np.array_equal(obs[2], obs[3])


@pytest.mark.slow
@pytest.mark.parametrize(("game", "first"), [("Pong", 1), ("Freeway", 0)])
def test_a_game_begins_with_fire_if_it_has_it_and_random_noops(game: str, first: int) -> None:
    env = make_atari_env(f"{game}NoFrameskip-v4", obs_type="ram")
    assert ("FIRE" in env.unwrapped.get_action_meanings()) == bool(first)
    starts = [env.reset(seed=0)[1]["episode_frame_number"]]
    starts += [env.reset()[1]["episode_frame_number"] for _ in range(40)]
    assert min(starts) >= first
    assert max(starts) <= 29
    assert len(set(starts)) > 12
    (obs, info), (again, _), (other, other_info) = (env.reset(seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(obs, again)
    assert not np.array_equal(obs, other) or info != other_info
    none = make_atari_env(f"{game}NoFrameskip-v4", obs_type="ram", noop_max=0)
    assert {none.reset()[1]["episode_frame_number"] for _ in range(3)} == {first}


@pytest.mark.slow
@pytest.mark.parametrize(("obs_type", "frames"), [("pixels", 42), ("ram", 44)])
def test_a_game_is_truncated_at_the_cap(obs_type: str, frames: int) -> None:
    if obs_type == "pixels":
        pytest.importorskip("cv2")
    env = make_atari_env("PongNoFrameskip-v4", obs_type, max_num_frames_per_episode=42)
    for _ in range(2):
        start = env.reset(seed=3)[1]["episode_frame_number"]
        ends = [env.step(0)[2:] for _ in range(11)]
        assert [truncated for _, truncated, _ in ends] == [False] * 10 + [True]
        assert not any(terminated for terminated, _, _ in ends)
        assert ends[-1][2]["episode_frame_number"] - start == frames


@pytest.mark.slow
def test_sticky_actions_are_those_of_the_id() -> None:
    def stickiness(env_id: str, **kwargs: Any) -> float:
        game: Any = make_atari_env(env_id, obs_type="ram", **kwargs).unwrapped
        return float(game.ale.getFloat("repeat_action_probability"))

    assert stickiness("PongNoFrameskip-v4") == 0
    assert stickiness("ALE/Pong-v5") == 0.25
    assert stickiness("ALE/Pong-v5", repeat_action_probability=0.0) == 0


def test_the_full_action_set_may_be_asked_for() -> None:
    assert make_atari_env("PongNoFrameskip-v4", obs_type="ram").action_space == gym.spaces.Discrete(6)
    full = make_atari_env("PongNoFrameskip-v4", obs_type="ram", full_action_space=True)
    assert full.action_space == gym.spaces.Discrete(18)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.parametrize("obs_type", ["pixels", "ram"])
def test_gymnasium_accepts_it_and_makes_it_again_from_its_spec(obs_type: str) -> None:
    if obs_type == "pixels":
        pytest.importorskip("cv2")
    env = make_atari_env("PongNoFrameskip-v4", obs_type, noop_max=5)
    check_env(env, skip_render_check=True)
    assert env.spec is not None
    assert env.spec.id == "PongNoFrameskip-v4"
    again = gym.make(env.spec)
    for made in (env, again):
        made.reset(seed=4)
    for action in (2, 3, 3, 2):
        np.testing.assert_array_equal(env.step(action)[0], again.step(action)[0])
    assert again.observation_space == env.observation_space


def test_it_renders_in_real_time() -> None:
    env = make_atari_env("PongNoFrameskip-v4", obs_type="ram", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    assert (frame.dtype, frame.shape) == (np.uint8, (210, 160, 3))
    assert env.metadata["render_fps"] == 15


def test_pixels_of_a_single_env_need_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(TaskDistillError, match=r'OpenCV; run: pip install "gym-taskdistill\[atari\]"'):
        make_atari_env("PongNoFrameskip-v4")
    assert make_atari_env("PongNoFrameskip-v4", obs_type="ram").reset()[0].shape == (128,)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("PangNoFrameskip-v4", {}, r'no env "PangNoFrameskip-v4".*Did you mean "PongNoFrameskip-v4"\?'),
        ("CartPole-v1", {}, "CartPole-v1 is not an Atari game"),
        ("Pong-v4", {}, 'Pong-v4 skips a random number.*"PongNoFrameskip-v4" or "ALE/Pong-v5"'),
        (
            "ALE/Pong-v5",
            {"obs_type": "rma"},
            r'no obs_type "rma"; use pixels, ram or bits\. Did you mean "ram"\?',
        ),
        ("ALE/Pong-v5", {"frameskip": 1}, 'ALE/Pong-v5 has no argument "frameskip"; known are obs_type, '),
        ("ALE/Pong-v5", {"noop_mx": 1}, r'Did you mean "noop_max"\?'),
        ("ALE/Pong-v5", {"noop_max": -1}, "noop_max of ALE/Pong-v5 must be a whole.*, at least 0, not -1"),
        ("ALE/Pong-v5", {"max_num_frames_per_episode": 0}, "must be a whole number, at least 1, not 0"),
        ("ALE/Pong-v5", {"repeat_action_probability": 2}, "must be from 0 to 1, not 2"),
        ("ALE/Pong-v5", {"full_action_space": 1}, "must be true or false, not 1"),
    ],
)
def test_what_cannot_be_made_is_refused(env_id: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        make_atari_env(env_id, **kwargs)


def test_a_missing_rom_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(TaskDistillError, match=r"ROM of PongNoFrameskip-v4 cannot be read: .*pong\.bin"):
        make_atari_env("PongNoFrameskip-v4", obs_type="ram")
