"""``python -m gym_taskdistill.push``: share a dataset on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from gym_taskdistill.cli.common import key_values, load_dataset, run_command
from gym_taskdistill.uses.sharing import push


@dataclass(frozen=True)
class PushArgs:
    """Share a dataset on the Hugging Face Hub, with a model card and a GIF of a fresh agent.

    Needs pip install "gym-taskdistill[hub]", and to be logged in there: hf auth login.
    """

    entry: tyro.conf.Positional[str]
    """A dataset file, or a zoo entry: CartPoleND-v0, or in full CartPoleND-v0/n=2,k_min."""

    repo: tyro.conf.Positional[str]
    """Repository, user/name; made if there is none."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the zoo entry's environment, as key=value: --env-kwargs n=3."""

    variant: str | None = None
    """Variant of the zoo entry; by default the one the zoo recommends."""

    private: bool = False
    """Make the repository private, if it is made now."""

    gif: bool = True
    """Record a GIF of a fresh agent, if the extra video is installed and no code needs --trust for it."""

    trust: bool = False
    """Run the code that the card names, to record the GIF: modules of environments and wrappers, functions
    that make learners."""


def push_command(args: PushArgs) -> None:
    """Run the command."""
    dataset = load_dataset(args.entry, args.variant, key_values(args.env_kwargs, "--env-kwargs"))
    print(push(dataset, args.repo, private=args.private, gif=None if args.gif else False))


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(PushArgs, push_command, argv)


if __name__ == "__main__":
    main()
