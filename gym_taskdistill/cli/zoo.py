"""``python -m gym_taskdistill.zoo``: list, show and add distilled datasets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from gym_taskdistill import zoo
from gym_taskdistill.cli.common import dataset_path, key_values, print_scores, run_command
from gym_taskdistill.dataset.card import Card, Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.critic_file import critic_path
from gym_taskdistill.errors import ZooError
from gym_taskdistill.files import replacing


@dataclass(frozen=True)
class ListArgs:
    """List the datasets of the zoo with the score of the learners each was distilled over."""

    env_id: tyro.conf.Positional[str | None] = None
    """Only those of this environment."""


@dataclass(frozen=True)
class _EntryArgs:
    entry: tyro.conf.Positional[str]
    """A zoo entry: an env id, or in full such as CartPoleND-v0/n=2,k_min; or a dataset file."""

    env_kwargs: tuple[str, ...] = ()
    """Arguments of the environment, as key=value: --env-kwargs n=3."""

    variant: str | None = None
    """Variant of the entry; by default the one the zoo recommends."""


@dataclass(frozen=True)
class ShowArgs(_EntryArgs):
    """Show a dataset: where it comes from, how it scores, and with --json its whole card."""

    json: bool = False
    """Print the card as JSON."""


@dataclass(frozen=True)
class PathArgs(_EntryArgs):
    """Print the path of a dataset's file."""


@dataclass(frozen=True)
class AddArgs:
    """Put a dataset into the zoo, with its critic if that lies beside it.

    An entry that scores higher is not replaced.
    """

    file: tyro.conf.Positional[Path]
    """The dataset's file, such as the best.safetensors of a run."""

    force: bool = False
    """Replace an entry even if it scores higher."""


Command = (
    Annotated[ListArgs, tyro.conf.subcommand("list")]
    | Annotated[ShowArgs, tyro.conf.subcommand("show")]
    | Annotated[PathArgs, tyro.conf.subcommand("path")]
    | Annotated[AddArgs, tyro.conf.subcommand("add")]
)


def list_entries(args: ListArgs) -> None:
    """Run ``zoo list``."""
    table = Table(title="Mean return of fresh agents ± standard deviation over agents")
    for heading in ("entry", "k", "inner steps", "learners", "mean ± std", "worst"):
        table.add_column(heading, justify="left" if heading in ("entry", "learners") else "right")
    for entry in zoo.entries(args.env_id):
        dataset, score = entry.load(), main_score(entry.card)
        figures = ("", "", "")
        if score is not None:
            mean, std, worst = score.figures
            figures = (score.learners, f"{mean} ± {std}", worst)
        table.add_row(entry.name, str(dataset.k), str(dataset.inner_steps), *figures)
    Console().print(table)


def show(args: ShowArgs) -> None:
    """Run ``zoo show``."""
    path = dataset_path(args.entry, args.variant, key_values(args.env_kwargs, "--env-kwargs"))
    dataset = DistilledDataset.load(path)
    card = dataset.card
    if args.json:
        print(json.dumps(card.to_dict(), indent=2))
        return
    print(dataset)
    print(f"file: {path}")
    print(f"distilled over: {json.dumps(card.learners)}")
    print(
        f"made in {card.num_timesteps:,} environment steps and {card.wall_clock_s:,.0f} s, seed "
        f"{card.seed}, on {card.created}"
    )
    print("with " + ", ".join(f"{name} {version}" for name, version in card.versions.items()))
    if card.notes:
        print(card.notes)
    print_scores("Scores", card.scores)


def print_path(args: PathArgs) -> None:
    """Run ``zoo path``."""
    print(dataset_path(args.entry, args.variant, key_values(args.env_kwargs, "--env-kwargs")))


def add(args: AddArgs) -> None:
    """Run ``zoo add``."""
    dataset = DistilledDataset.load(args.file)
    card, new = dataset.card, main_score(dataset.card)
    if new is None:
        raise ZooError(
            f'"{args.file}" has no score; evaluate it first: '
            f"python -m gym_taskdistill.evaluate {args.file} --record"
        )
    name = zoo.entry_name(card.env_kwargs, card.variant)
    for entry in zoo.entries(card.env_id):
        old = main_score(entry.card)
        same = entry.name.endswith(f"/{name}")
        if same and old is not None and old.mean > new.mean and not args.force:
            raise ZooError(
                f"{entry.name} scores {old.figures[0]}, more than the {new.figures[0]} of this dataset; "
                "use --force to replace it all the same."
            )
    path = zoo.save(dataset)
    _copy_critic(critic_path(args.file), critic_path(path))
    print(path)


def _copy_critic(source: Path, target: Path) -> None:
    """Put the critic beside the dataset, or remove that of the dataset before."""
    if source == target:
        return
    target.unlink(missing_ok=True)
    if source.is_file():
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def main_score(card: Card) -> Score | None:
    """Return the score that stands for a dataset: the first stochastic one, else the first."""
    stochastic = [score for score in card.scores if not score.deterministic]
    return next(iter([*stochastic, *card.scores]), None)


def run(args: ListArgs | ShowArgs | PathArgs | AddArgs) -> None:
    """Run the subcommand that was parsed."""
    if isinstance(args, ListArgs):
        list_entries(args)
    elif isinstance(args, ShowArgs):
        show(args)
    elif isinstance(args, PathArgs):
        print_path(args)
    else:
        add(args)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(Command, run, argv)


if __name__ == "__main__":
    main()
