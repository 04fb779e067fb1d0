"""``python -m gym_taskdistill.enjoy``: train a fresh agent on a dataset and watch or record it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro

from gym_taskdistill.cli.common import allow_typed, key_values, load_dataset, run_command
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.machine import use_threads
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.tasks import EnvArg, as_task
from gym_taskdistill.uses.figures import checked_suffix
from gym_taskdistill.uses.videos import (
    MAX_GIF_FPS,
    VIDEO_SUFFIXES,
    draw_without_display,
    has_display,
    play,
    recording,
)


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
    draw_without_display()
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


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(EnjoyArgs, enjoy, argv)


if __name__ == "__main__":
    main()
