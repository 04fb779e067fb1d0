"""Videos of agents at play: episodes, frame by frame, as GIF or MP4."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import replacing
from gym_taskdistill.policies.evaluation import STEP_CAP
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.tasks.task import has_time_limit

#: Suffixes an episode can be recorded under.
VIDEO_SUFFIXES = (".gif", ".mp4")

#: A GIF counts time in hundredths of a second, and browsers slow down whatever is shown for only one.
MAX_GIF_FPS = 50

#: Frames that the colours of a GIF are chosen from. ffmpeg keeps as many in memory.
PALETTE_FRAMES = 100


def play(
    env: gym.Env[Any, Any],
    policy: DistilledPolicy,
    deterministic: bool = False,
    seed: int | None = None,
    on_frame: Callable[[np.ndarray], None] | None = None,
    max_steps: float = math.inf,
) -> tuple[float, int]:
    """Let an agent play an episode.

    Args:
        env: The environment.
        policy: The agent.
        deterministic: Take the most likely action instead of sampling.
        seed: Seed of the environment.
        on_frame: Called with the picture after each step; the environment must render arrays.
        max_steps: Steps after which the episode is cut off.

    Returns:
        The raw return, and the number of steps; without a time limit an episode is cut off after `STEP_CAP`.

    Raises:
        TaskDistillError: The environment cannot be drawn.
    """
    obs, _ = env.reset(seed=seed)
    total, steps, is_over = 0.0, 0, False
    limit = min(max_steps, math.inf if has_time_limit(env) else STEP_CAP)
    while not is_over and steps < limit:
        action, _ = policy.predict(obs, deterministic=deterministic)
        obs, reward, terminated, truncated, _ = env.step(action)
        total, steps, is_over = total + float(reward), steps + 1, terminated or truncated
        if on_frame is not None:
            on_frame(_picture(env))
    return total, steps


def _picture(env: gym.Env[Any, Any]) -> np.ndarray:
    try:
        frame = env.render()
    except gym.error.Error:
        raise
    except Exception as error:  # graphics libraries raise errors of every kind
        raise TaskDistillError(f"The environment cannot be drawn here: {error}") from error
    if not isinstance(frame, np.ndarray):
        raise TaskDistillError("The environment cannot be recorded: it draws no arrays.")
    return frame


def has_display() -> bool:
    """Whether a window can be opened; without a display, SDL would open one that nobody sees."""
    variables = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    return not sys.platform.startswith("linux") or any(os.environ.get(name) for name in variables)


def draw_without_display() -> None:
    """Let MuJoCo draw where there is no display: its own choice, GLFW, wants one."""
    if not has_display():
        os.environ.setdefault("MUJOCO_GL", "egl")


@contextlib.contextmanager
def recording(path: Path, fps: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Record a GIF or an MP4, frame by frame; the file is there once all of them are written.

    Args:
        path: The file, ``.gif`` or ``.mp4``.
        fps: Frames per second.

    Yields:
        What takes the next frame, uint8 ``(height, width, 3)``, all of one size.

    Raises:
        TaskDistillError: imageio-ffmpeg is missing, or the file cannot be written.
    """
    _import_ffmpeg()
    with replacing(path) as temporary:
        writer: Generator[None, Any, None] | None = None

        def record(frame: np.ndarray) -> None:
            nonlocal writer
            # Common players want even sizes.
            height, width = frame.shape[:2]
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if writer is None:
                writer = _video_writer(temporary, (frame.shape[1], frame.shape[0]), fps)
                writer.send(None)
            writer.send(np.ascontiguousarray(frame))

        try:
            yield record
        finally:
            if writer is not None:
                writer.close()


def _video_writer(path: Path, size: tuple[int, int], fps: int) -> Generator[None, Any, None]:
    """Return imageio-ffmpeg's writer: frames are encoded as they come, in little memory."""
    options: dict[str, Any] = {"codec": "libx264", "output_params": ["-movflags", "+faststart"]}
    if path.suffix.lower() == ".gif":
        # imageio's own GIF writer would keep every frame until the end, and merge equal ones.
        palette = (
            f"[0:v] split [first][all]; [first] trim=end_frame={PALETTE_FRAMES}, palettegen [palette]; "
            "[all][palette] paletteuse=dither=none"
        )
        options = {"codec": "gif", "pix_fmt_out": "pal8", "output_params": ["-filter_complex", palette]}
    writer: Generator[None, Any, None] = _import_ffmpeg().write_frames(
        # Of "12:30.gif" ffmpeg would take the part before the colon for a protocol.
        str(path.absolute()),
        size,
        fps=fps,
        macro_block_size=1,
        ffmpeg_log_level="error",
        **options,
    )
    return writer


def _import_ffmpeg() -> Any:
    try:
        import imageio_ffmpeg

        imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # the latter where it comes without its program
        raise TaskDistillError(
            'Recording needs imageio-ffmpeg: run `pip install "gym-taskdistill[video]"`.'
        ) from None
    return imageio_ffmpeg
