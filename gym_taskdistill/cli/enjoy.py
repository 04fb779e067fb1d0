"""``python -m gym_taskdistill.enjoy``: train a fresh agent on a dataset and watch or record it."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro

from gym_taskdistill.cli.common import allow_typed, key_values, load_dataset, run_command
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import replacing
from gym_taskdistill.machine import use_threads
from gym_taskdistill.policies.evaluation import STEP_CAP
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.tasks import EnvArg, as_task
from gym_taskdistill.tasks.task import has_time_limit
from gym_taskdistill.uses.figures import checked_suffix

#: Suffixes an episode can be recorded under.
VIDEO_SUFFIXES = (".gif", ".mp4")

#: A GIF counts time in hundredths of a second, and browsers slow down whatever is shown for only one.
MAX_GIF_FPS = 50

#: Frames that the colours of a GIF are chosen from. ffmpeg keeps as many in memory.
PALETTE_FRAMES = 100


@dataclass(frozen=True)
class EnjoyArgs:
    """Train fresh agents on a dataset, one inner step each, and watch or record them."""

    dataset: tyro.conf.Positional[str]
    """A dataset file, or a zoo entry: CartPoleND-v0, or in full CartPoleND-v0/n=2,k_min."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the zoo entry's environment, as key=value: --env-kwargs n=3."""

    variant: str | None = None
    """Variant of the zoo entry; by default the one the zoo recommends."""

    learners: str | None = None
    """Learner distribution to draw agents from, by name, or a function that makes networks,
    package.module:function; by default the dataset's own."""

    trust: bool = False
    """Run the code that files name: modules of environments and wrappers, functions that make learners, and
    models that SB3 pickled."""

    episodes: int = 3
    """Number of episodes."""

    same_agent: bool = False
    """Let one agent play all episodes; by default each is played by a fresh one."""

    deterministic: bool = False
    """Take the most likely action instead of sampling."""

    seed: int | None = None
    """Seed of agents, actions and the environment; drawn and printed if not given."""

    record: Path | None = None
    """File to record to, .gif or .mp4, in place of a window."""

    fps: int | None = None
    """Frames per second; by default the environment's own."""


def enjoy(args: EnjoyArgs, env: EnvArg | None = None) -> None:
    """Run the command.

    Args:
        args: Its arguments.
        env: What to play in place of the dataset's task, such as a function that makes it.
    """
    if args.episodes < 1:
        raise TaskDistillError(f"--episodes must be at least 1, not {args.episodes}.")
    if args.fps is not None and args.fps < 1:
        raise TaskDistillError(f"--fps must be at least 1, not {args.fps}.")
    if args.record is not None:
        checked_suffix(args.record, VIDEO_SUFFIXES, "A recording")
    elif not has_display():
        raise TaskDistillError("There is no display to show an episode on; record it: --record out.gif.")
    if not has_display():
        os.environ.setdefault("MUJOCO_GL", "egl")  # MuJoCo's own choice, GLFW, wants a display
    use_threads(1)
    try:
        _play_all(args, env)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except gym.error.DependencyNotInstalled as error:
        raise TaskDistillError(str(error)) from None


def _play_all(args: EnjoyArgs, env_arg: EnvArg | None) -> None:
    dataset = load_dataset(args.dataset, args.variant, key_values(args.env_kwargs, "--env-kwargs"))
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if args.seed is None else args.seed
    allow_typed(args.learners)
    policy = DistilledPolicy(dataset, args.learners, seed)
    task = dataset.task if env_arg is None else as_task(env_arg)
    mode = "human" if args.record is None else "rgb_array"
    with contextlib.closing(task.make_env(mode)) as env:
        dataset.check_env(env)
        fps = _frame_rate(env, args)
        print(f"{task} (seed {seed})")
        with contextlib.nullcontext() if args.record is None else recording(args.record, fps) as record:
            for episode in range(args.episodes):
                if episode and not args.same_agent:
                    policy = DistilledPolicy(dataset, args.learners, seed + episode)
                total, steps = play(env, policy, args.deterministic, seed + episode, record)
                outcome = f"return {total:.1f} in {steps} steps"
                print(f"episode {episode + 1}: {outcome} (agent of seed {policy.seed})", flush=True)
    if args.record is not None:
        print(args.record)


def play(
    env: gym.Env[Any, Any],
    policy: DistilledPolicy,
    deterministic: bool = False,
    seed: int | None = None,
    on_frame: Callable[[np.ndarray], None] | None = None,
) -> tuple[float, int]:
    """Let an agent play an episode.

    Args:
        env: The environment.
        policy: The agent.
        deterministic: Take the most likely action instead of sampling.
        seed: Seed of the environment.
        on_frame: Called with the picture after each step; the environment must render arrays.

    Returns:
        The raw return, and the number of steps; without a time limit an episode is cut off after `STEP_CAP`.

    Raises:
        TaskDistillError: The environment cannot be drawn.
    """
    obs, _ = env.reset(seed=seed)
    total, steps, is_over = 0.0, 0, False
    limit = math.inf if has_time_limit(env) else STEP_CAP
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


def _frame_rate(env: gym.Env[Any, Any], args: EnjoyArgs) -> int:
    """Return the frames per second, and make a window keep to them."""
    fps = args.fps or round(env.metadata.get("render_fps") or 30)
    if args.record is None:
        env.unwrapped.metadata = {**env.unwrapped.metadata, "render_fps": fps}
    elif args.record.suffix.lower() == ".gif" and fps > MAX_GIF_FPS:
        if args.fps is not None:
            raise TaskDistillError(
                f"A GIF has at most {MAX_GIF_FPS} frames per second; record an .mp4 instead."
            )
        fps = MAX_GIF_FPS
    return fps


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


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(EnjoyArgs, enjoy, argv)


if __name__ == "__main__":
    main()
