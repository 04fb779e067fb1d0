"""``python -m gym_taskdistill.plot``: draw learning curves, profiles, rows, or an architecture search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gym_taskdistill import zoo
from gym_taskdistill.cli.common import key_values, load_dataset, run_command
from gym_taskdistill.dataset.file import read_card
from gym_taskdistill.uses.curves import plot_learning_curves
from gym_taskdistill.uses.profiles import plot_profiles
from gym_taskdistill.uses.rankings import plot_search
from gym_taskdistill.uses.rows import plot_rows
from gym_taskdistill.uses.search import RANKED_BY


@dataclass(frozen=True)
class CurvesArgs:
    """Draw how fresh agents scored in the course of runs."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs, such as runs/cartpole_1."""

    over_seeds: bool = False
    """A curve for each recipe, the mean over its runs of several seeds, with a band of the 95 % interval."""

    out: Path = Path("curves.png")
    """File to write: .png, .pdf or .svg."""


@dataclass(frozen=True)
class ProfileArgs:
    """Draw which share of fresh agents scores more than a return, for every return."""

    entries: tyro.conf.Positional[tuple[str, ...]]
    """Dataset files or zoo entries, such as CartPoleND-v0/n=2,k_min."""

    learners: str | None = None
    """What agents were drawn from; by default what the first score of the card is of."""

    deterministic: bool = False
    """Take the scores of deterministic policies."""

    out: Path = Path("profile.png")
    """File to write: .png, .pdf or .svg."""


@dataclass(frozen=True)
class RowsArgs:
    """Draw what a dataset teaches: its rows, each with its label."""

    dataset: tyro.conf.Positional[str]
    """A dataset file, or a zoo entry: CartPoleND-v0, or in full CartPoleND-v0/n=2,k_min."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the zoo entry's environment, as key=value: --env-kwargs n=3."""

    variant: str | None = None
    """Variant of the zoo entry; by default the one the zoo recommends."""

    out: Path = Path("rows.png")
    """File to write: .png, .pdf or .svg."""


@dataclass(frozen=True)
class SearchFigureArgs:
    """Draw what an architecture search found: a panel for each trait, the best architecture at the top."""

    folder: tyro.conf.Positional[Path]
    """Folder of the search, such as runs/search/Hopper-v4/universal-ridge."""

    by: str = RANKED_BY
    """Trait that architectures are ranked by."""

    out: Path = Path("search.png")
    """File to write: .png, .pdf or .svg."""


Command = (
    Annotated[CurvesArgs, tyro.conf.subcommand("curves")]
    | Annotated[ProfileArgs, tyro.conf.subcommand("profile")]
    | Annotated[RowsArgs, tyro.conf.subcommand("rows")]
    | Annotated[SearchFigureArgs, tyro.conf.subcommand("search")]
)


def plot(args: CurvesArgs | ProfileArgs | RowsArgs | SearchFigureArgs) -> None:
    """Run the subcommand that was parsed."""
    if isinstance(args, CurvesArgs):
        plot_learning_curves(args.runs, args.out, args.over_seeds)
    elif isinstance(args, ProfileArgs):
        cards = {name: read_card(zoo.resolve(name)) for name in args.entries}
        plot_profiles(cards, args.out, args.learners, args.deterministic)
    elif isinstance(args, SearchFigureArgs):
        plot_search(args.folder, args.out, args.by)
    else:
        env_kwargs = key_values(args.env_kwargs, "--env-kwargs")
        plot_rows(load_dataset(args.dataset, args.variant, env_kwargs), args.out)
    print(args.out)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(Command, plot, argv)


if __name__ == "__main__":
    main()
