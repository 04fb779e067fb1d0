"""``taskdistill <command>``, also ``python -m gym_taskdistill <command>``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from gym_taskdistill import __version__
from gym_taskdistill.errors import did_you_mean

#: Commands and the modules that run them; each is also ``python -m gym_taskdistill.<command>``.
COMMANDS = {
    "train": "distil an environment into a dataset",
    "recipes": "list the tasks that have a recipe, and what it makes",
    "summary": "tell what the runs of several seeds come to",
    "reproduce": "make entries of the zoo again from nothing",
    "evaluate": "train fresh agents on a dataset and test them",
    "enjoy": "watch or record a fresh agent",
    "export": "hand agents, or their episodes, to other libraries",
    "zoo": "list, show and add distilled datasets",
    "push": "share a dataset on the Hugging Face Hub",
    "pull": "put a dataset of the Hub into your own zoo",
    "baselines": "set simpler things beside a dataset",
    "cost": "tell what an agent costs on a dataset, and by PPO",
    "search": "rank architectures by networks that a dataset trains",
    "plot": "draw learning curves, performance profiles, rows and searches",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        print(f"gym-taskdistill {__version__}")
        return
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: taskdistill COMMAND [OPTIONS]\n")
        for name, summary in COMMANDS.items():
            print(f"  {name:11}{summary}")
        print("\ntaskdistill COMMAND --help tells a command's options, taskdistill --version the version.")
        return
    command, *rest = arguments
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS)
        raise SystemExit(f'error: there is no command "{command}"; use {", ".join(COMMANDS)}.{hint}')
    # Imported only now: a command should not wait for the libraries of another.
    importlib.import_module(f"gym_taskdistill.cli.{command}").main(rest)


if __name__ == "__main__":
    main()
