"""``python -m gym_taskdistill.zoo``: list, show and add distilled datasets."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from gym_taskdistill import zoo
from gym_taskdistill.cli.common import key_values, print_columns, print_scores, printable, run_command
from gym_taskdistill.dataset.card import Card, Score
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill import critic_file
from gym_taskdistill.errors import DatasetError
from gym_taskdistill.paths import checkout_root


@dataclass(frozen=True)
class ListArgs:
    """List the datasets of the zoo with the score of the learners each was distilled over."""

    env_id: tyro.conf.Positional[str | None] = None
    """Only those of this environment."""

    json: bool = False
    """Print the list as JSON."""


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
    """Put a dataset into your own zoo, with its critic if that lies beside it.

    Your zoo is the folder that TASKDISTILL_ZOO names, or lies in your data directory. An entry that was
    selected with a higher score is not replaced; scores of the test decide nothing.
    """

    file: tyro.conf.Positional[str]
    """The dataset: a file, or the folder of a run."""

    force: bool = False
    """Replace an entry even if it was selected with a higher score; take the place of the default one too."""

    shipped: bool = False
    """Write into the zoo of this source checkout instead."""


Command = (
    Annotated[ListArgs, tyro.conf.subcommand("list")]
    | Annotated[ShowArgs, tyro.conf.subcommand("show")]
    | Annotated[PathArgs, tyro.conf.subcommand("path")]
    | Annotated[AddArgs, tyro.conf.subcommand("add")]
)


def list_entries(args: ListArgs) -> None:
    """Run ``zoo list``."""
    found = []
    for entry in zoo.entries(args.env_id):
        try:
            found.append((entry, entry.load()))
        except DatasetError as error:
            warnings.warn(f"An entry of the zoo is left out: {error}", zoo.ZooWarning, stacklevel=1)
    if args.json:
        print(json.dumps([_facts(entry, dataset) for entry, dataset in found], indent=2))
        return
    headings = ("entry", "default", "k", "steps", "learners", "mean", "std", "worst", "")
    rows = []
    for entry, dataset in found:
        score = main_score(dataset.card)
        figures = ("", "", "", "") if score is None else (score.learners, *score.figures)
        marks = "default" if entry.default else "", "legacy" if dataset.card.legacy else ""
        rows.append((entry.name, marks[0], str(dataset.k), str(dataset.rule.steps), *figures, marks[1]))
    print_columns(headings, rows, left=("entry", "default", "learners", ""))
    print(
        "\nmean, std and worst: over fresh agents' mean returns. default: meant where no variant is named.\n"
        "legacy: the card cannot tell as stages how the dataset was made."
    )


def _facts(entry: zoo.ZooEntry, dataset: DistilledDataset) -> dict[str, Any]:
    """Return what the list tells of an entry, as plain data."""
    score = main_score(dataset.card)
    return {
        "name": entry.name,
        "env_id": entry.env_id,
        "env_kwargs": entry.env_kwargs,
        "variant": entry.variant,
        "default": entry.default,
        "legacy": dataset.card.legacy,
        "k": dataset.k,
        "inner_steps": dataset.rule.steps,
        "score": score and {k: v for k, v in score.to_dict().items() if k != "agent_means"},
        "path": str(entry.path),
    }


def show(args: ShowArgs) -> None:
    """Run ``zoo show``."""
    path = zoo.resolve(args.entry, args.variant, **key_values(args.env_kwargs, "--env-kwargs"))
    dataset = DistilledDataset.load(path)
    card = dataset.card
    if args.json:
        print(json.dumps(card.to_dict(), indent=2))
        return
    print(printable(str(dataset)))
    print(f"file: {path}")
    print(f"digest: {dataset.digest}")
    print(printable(f"distilled over: {json.dumps(card.learners)}"))
    print(
        printable(
            f"made in {card.num_timesteps:,} environment steps and {card.wall_clock_s:,.0f} s, seed "
            f"{card.seed}, on {card.created}"
        )
    )
    for i, stage in enumerate(card.lineage, 1):
        settings = json.dumps(stage.settings)
        print(printable(f"stage {i}: {stage.kind} {settings}, seed {stage.seed}, {stage.env_steps:,} steps"))
    print(printable("with " + ", ".join(f"{name} {version}" for name, version in card.versions.items())))
    if card.notes:
        print(printable(card.notes))
    print_scores("Scores", card.scores)


def print_path(args: PathArgs) -> None:
    """Run ``zoo path``."""
    print(zoo.resolve(args.entry, args.variant, **key_values(args.env_kwargs, "--env-kwargs")))


def add(args: AddArgs) -> None:
    """Run ``zoo add``."""
    file = zoo.resolve(args.file)
    dataset = DistilledDataset.load(file)
    critic = critic_file.of_dataset(file, dataset.digest)
    print(zoo.add(dataset, critic, root=checkout_root("zoo") if args.shipped else None, force=args.force))


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
