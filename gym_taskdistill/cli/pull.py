"""``python -m gym_taskdistill.pull``: put a dataset of the Hugging Face Hub into your own zoo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from gym_taskdistill.cli.common import run_command
from gym_taskdistill.uses.sharing import pull


@dataclass(frozen=True)
class PullArgs:
    """Put a dataset of the Hugging Face Hub into your own zoo; its checksum is verified, no code comes along.

    Needs pip install "gym-taskdistill[hub]". Commands also take hf://user/name in place of an entry.
    """

    repo: tyro.conf.Positional[str]
    """Repository, user/name, or user/name@revision for a branch, a tag or a commit."""

    force: bool = False
    """Take the place of an entry of the same name."""


def pull_command(args: PullArgs) -> None:
    """Run the command."""
    print(pull(args.repo, force=args.force))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(PullArgs, pull_command, argv)


if __name__ == "__main__":
    main()
