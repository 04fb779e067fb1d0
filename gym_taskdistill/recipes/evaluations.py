"""The table of a stage's tests, ``evaluations.csv``: what fresh agents scored, and when."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.files import replacing

#: Name of the table in a stage's folder.
TABLE = "evaluations.csv"

#: Its columns: env steps of the stage, and mean, standard deviation and worst over agents.
FIELDS = ("num_timesteps", "mean", "std", "min")

#: One test.
Row = tuple[int, float, float, float]


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the table, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        writer.writerows(rows)


def read(path: Path) -> list[Row]:
    """Read the table; it is empty where there is none.

    Raises:
        TaskDistillError: It is not such a table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                (int(float(row[FIELDS[0]])), *(float(row[name]) for name in FIELDS[1:]))  # type: ignore[misc]
                for row in csv.DictReader(file)
            ]
    except FileNotFoundError:
        return []
    except (OSError, KeyError, TypeError, ValueError, OverflowError, csv.Error):
        raise TaskDistillError(f'"{path}" is not the table of evaluations of a run.') from None
