"""``python -m gym_taskdistill.enjoy``: what is recorded is what was played."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from gym_taskdistill import DistilledPolicy
from gym_taskdistill.cli import enjoy
from gym_taskdistill.dataset.card import Card
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.learners import ALPHA_C
from gym_taskdistill.uses import videos

OUTCOME = re.compile(r"episode (\d+): return ([\d.]+) in (\d+) steps \(agent of seed (\d+)\)")


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A dataset that pushes the cart away from the pole: its episodes are short."""
    card = Card(
        env_id="CartPoleND-v0",
        env_kwargs={"n": 1},
        observation_space={"type": "Box", "shape": [4], "dtype": "float32"},
        action_space={"type": "Discrete", "n": 2},
        learners=ALPHA_C.spec(),
    )
    x = torch.tensor([[0.0, 0.0, 0.1, 0.5], [0.0, 0.0, -0.1, -0.5]])
    y = torch.tensor([[4.0, -4.0], [-4.0, 4.0]])
    return str(DistilledDataset(x=x, y=y, rule=InnerSGD(lr=1.0), card=card).save(tmp_path / "falls"))


def outcomes(capsys: pytest.CaptureFixture[str]) -> list[tuple[int, float, int, int]]:
    """Episode, return, steps and the agent's seed of each line printed."""
    found = OUTCOME.findall(capsys.readouterr().out)
    return [(int(number), float(total), int(steps), int(seed)) for number, total, steps, seed in found]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match="1"):
        enjoy.main(arguments)
    error: str = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


# --- recordings -----------------------------------------------------------------------------------


def test_a_gif_has_a_frame_for_each_step(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enjoy.main([file, "--record", "out.gif", "--episodes", "2", "--seed", "3", "--fps", "25"])
    episodes = outcomes(capsys)
    assert len(episodes) == 2
    with Image.open("out.gif") as gif:
        assert gif.n_frames == sum(steps for _, _, steps, _ in episodes)
        assert gif.info["duration"] == 40
        assert gif.info["loop"] == 0
        first = np.asarray(gif.convert("RGB"))
        gif.seek(gif.n_frames - 1)
        last = np.asarray(gif.convert("RGB"))
    assert (first != last).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["falls.json", "falls.safetensors", "out.gif"]


def test_the_last_frame_is_the_state_in_which_the_episode_ended(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    enjoy.main([file, "--record", "out.gif", "--episodes", "1", "--seed", "3"])
    env = gym.make("CartPoleND-v0", n=1, render_mode="rgb_array")
    frames: list[np.ndarray] = []
    videos.play(env, DistilledPolicy.from_file(file, seed=3), seed=3, on_frame=frames.append)
    env.close()
    with Image.open("out.gif") as gif:
        assert gif.n_frames == len(frames)
        for number in (0, len(frames) - 1):
            gif.seek(number)
            shown = np.asarray(gif.convert("RGB")).astype(int)
            assert np.abs(shown - frames[number]).max() < 30  # 256 colours are not all


def test_an_mp4_has_a_frame_for_each_step(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    enjoy.main([file, "--record", "out.mp4", "--episodes", "1", "--seed", "3"])
    ((_, _, steps, _),) = outcomes(capsys)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs("out.mp4")
    assert frames == steps
    assert seconds == pytest.approx(steps / 50, abs=0.02)  # the env's own 50 frames per second


def test_equal_frames_and_odd_sizes_are_kept(tmp_path: Path) -> None:
    for name in ("a.gif", "a.mp4"):
        with videos.recording(tmp_path / name, 10) as record:
            for _ in range(5):
                record(np.full((33, 51, 3), 200, dtype=np.uint8))
        assert imageio_ffmpeg.count_frames_and_secs(tmp_path / name)[0] == 5
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.size == (52, 34)


@pytest.mark.parametrize("name", ["12:30.gif", "a:b.mp4", "-x.gif", "a b'%d.mp4"])
def test_a_name_of_any_letters_is_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a protocol, an option or a pattern, as ffmpeg takes them."""
    monkeypatch.chdir(tmp_path)
    with enjoy.recording(Path(name), 10) as record:
        for _ in range(3):
            record(np.zeros((32, 32, 3), dtype=np.uint8))
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_an_interrupted_recording_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.gif"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), videos.recording(path, 10) as record:
        record(np.zeros((32, 32, 3), dtype=np.uint8))
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.gif"]


def test_a_gif_has_at_most_50_frames_per_second(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "at most 50" in error_of([file, "--record", "out.gif", "--fps", "60"], capsys)
    assert not Path("out.gif").exists()


# --- agents ---------------------------------------------------------------------------------------


def test_each_episode_has_a_fresh_agent(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    enjoy.main([file, "--seed", "10", "--episodes", "3", "--fps", "100000"])
    episodes = outcomes(capsys)
    assert [number for number, *_ in episodes] == [1, 2, 3]
    assert [seed for *_, seed in episodes] == [10, 11, 12]
    for _, total, steps, seed in episodes:
        assert total == steps  # the reward of every step is 1
        env = gym.make("CartPoleND-v0", n=1)
        assert videos.play(env, DistilledPolicy.from_file(file, seed=seed), seed=seed) == (total, steps)


def test_the_same_agent_can_play_all_episodes(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    enjoy.main([file, "--seed", "10", "--same-agent", "--fps", "100000"])
    assert [seed for *_, seed in outcomes(capsys)] == [10, 10, 10]


def test_learners_and_policy_can_be_chosen(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Any, bool]] = []

    def play(env: Any, policy: DistilledPolicy, deterministic: bool, *rest: Any) -> tuple[float, int]:
        made.append((policy.learners, deterministic))
        return 0.0, 1

    monkeypatch.setattr(enjoy, "play", play)
    enjoy.main([file, "--learners", "random_h", "--deterministic", "--episodes", "1"])
    ((learners, deterministic),) = made
    assert learners == DistilledPolicy.from_file(file, learners="random_h").learners
    assert deterministic


def test_a_drawn_seed_is_printed(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    enjoy.main([file, "--episodes", "1", "--fps", "100000"])
    text = capsys.readouterr().out
    first = re.match(r"CartPoleND-v0 n=1 \(seed (\d+)\)\n", text)
    assert first is not None and f"agent of seed {first[1]}" in text


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", "0"], "--episodes must be at least 1"),
        (["--fps", "0"], "--fps must be at least 1"),
        (["--record", "out.avi"], "saved as .gif, .mp4"),
        (["--record", "no/out.gif"], 'no folder "no"'),
        (["--learners", "nobody"], "no learners named"),
    ],
)
def test_a_mistake_is_one_sentence(
    file: str, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error_of([file, *arguments], capsys)


def test_a_dataset_must_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere" in error_of(["nowhere.safetensors"], capsys)


def test_without_a_display_it_suggests_to_record(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MUJOCO_GL", "egl")  # so that the command does not set it for other tests
    monkeypatch.setattr(sys, "platform", "linux")
    assert "--record out.gif" in error_of([file], capsys)
    enjoy.main([file, "--record", "out.gif", "--episodes", "1"])  # which needs none
    assert Path("out.gif").is_file()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert videos.has_display()


@pytest.mark.parametrize("missing", ["imageio_ffmpeg", "pygame"])
def test_what_is_missing_is_named(
    file: str, missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    error = error_of([file, "--record", "out.gif"], capsys)
    assert 'pip install "gym-taskdistill[video]"' in error
    assert not Path("out.gif").exists()


def test_what_cannot_be_drawn_is_one_sentence(file: str) -> None:
    policy = DistilledPolicy.from_file(file, seed=0)

    class Broken(gym.Wrapper[Any, Any, Any, Any]):
        def render(self) -> Any:
            raise RuntimeError("no OpenGL")

    for env, message in (
        (Broken(gym.make("CartPoleND-v0", n=1)), "cannot be drawn here: no OpenGL"),
        (gym.make("CartPoleND-v0", n=1, render_mode="human"), "draws no arrays"),
    ):
        with pytest.raises(TaskDistillError, match=message):
            videos.play(env, policy, seed=0, on_frame=lambda frame: None)
        env.close()
