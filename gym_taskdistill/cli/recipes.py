"""``python -m gym_taskdistill.recipes``: list what recipes make, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from gym_taskdistill import zoo
from gym_taskdistill.cli.common import print_columns, run_command
from gym_taskdistill.recipes.file import recipes
from gym_taskdistill.recipes.recipe import Recipe


@dataclass(frozen=True)
class RecipesArgs:
    """List the tasks that have a recipe: their variants, the stages of each, and the time that it took."""

    task: tyro.conf.Positional[str | None] = None
    """Only those of this environment, such as Hopper-v4."""


def list_recipes(args: RecipesArgs) -> None:
    """Run the command."""
    rows = []
    for recipe in recipes():
        if args.task is None or recipe.env_id == args.task:
            stages = " > ".join(f"{s.kind} {' '.join(s.sources())}".strip() for s in recipe.stages)
            rows.append([recipe.entry, "yes" if recipe.default else "", stages, expected_time(recipe)])
    print_columns(["entry", "default", "stages", "minutes on one core"], rows, ["entry", "default", "stages"])


def expected_time(recipe: Recipe) -> str:
    """Return how many minutes the zoo's entry of a recipe took, empty if no such entry tells it."""
    entry = next((e for e in zoo.entries(recipe.env_id) if e.name == recipe.entry), None)
    if entry is None or entry.card.legacy:
        return ""
    return f"{sum(record.seconds for record in entry.card.lineage) / 60:.0f}"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(RecipesArgs, list_recipes, argv)


if __name__ == "__main__":
    main()
