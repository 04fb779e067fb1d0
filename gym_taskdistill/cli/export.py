"""``python -m gym_taskdistill.export``: hand agents, or their episodes, to other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from gym_taskdistill.cli.common import allow_typed, key_values, load_dataset, progress, run_command
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.machine import use_threads
from gym_taskdistill.policies.policy import DistilledPolicy


@dataclass(frozen=True)
class ExportArgs:
    """Train fresh agents on a dataset, and hand them or their episodes to other libraries."""

    entry: tyro.conf.Positional[str]
    """A dataset file, or a zoo entry: CartPoleND-v0, or in full CartPoleND-v0/n=2,k_min."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the zoo entry's environment, as key=value: --env-kwargs n=3."""

    variant: str | None = None
    """Variant of the zoo entry; by default the one the zoo recommends."""

    minari: str | None = None
    """Id of the Minari dataset of episodes to make, such as cartpole/distilled-v0. Needs
    pip install "gym-taskdistill[minari]"."""

    episodes: int = 100
    """Episodes of the Minari dataset, each by a fresh agent."""

    same_agent: bool = False
    """Let one agent play all episodes."""

    deterministic: bool = False
    """Take the most likely action instead of sampling."""

    onnx: Path | None = None
    """File to write an agent to, .onnx. Needs pip install "gym-taskdistill[onnx]"."""

    learners: str | None = None
    """Learner distribution to draw agents from, by name, or a function that makes networks,
    package.module:function; by default the dataset's own."""

    seed: int | None = None
    """Seed of the first agent, its actions and its environment; drawn and printed if not given."""

    trust: bool = False
    """Run the code that files name: modules of environments and wrappers, functions that make learners."""

    progress_bar: bool = True
    """Show progress and time left."""


def export(args: ExportArgs) -> None:
    """Run the command."""
    if args.minari is None and args.onnx is None:
        raise TaskDistillError("Say what to export: --minari cartpole/distilled-v0, or --onnx agent.onnx.")
    if args.episodes < 1:
        raise TaskDistillError(f"--episodes must be at least 1, not {args.episodes}.")
    use_threads(1)
    dataset = load_dataset(args.entry, args.variant, key_values(args.env_kwargs, "--env-kwargs"))
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if args.seed is None else args.seed
    allow_typed(args.learners)
    policy = DistilledPolicy(dataset, args.learners, seed)
    print(f"{dataset.card.task} (seed {seed})", flush=True)
    if args.onnx is not None:
        print(policy.to_onnx(args.onnx))
    if args.minari is not None:
        with progress(args.episodes, "episode", args.progress_bar) as bar:
            options = {"fresh": not args.same_agent, "deterministic": args.deterministic}
            folder = policy.to_minari(args.minari, args.episodes, **options, progress=bar.update)
        print(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(ExportArgs, export, argv)


if __name__ == "__main__":
    main()
