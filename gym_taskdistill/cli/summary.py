"""``python -m gym_taskdistill.summary``: tell what the runs of several seeds come to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from gym_taskdistill.cli.common import ends_text, print_columns, printable, run_command
from gym_taskdistill.dataset.card import digits
from gym_taskdistill.recipes.group import Column, Summary, summaries


@dataclass(frozen=True)
class SummaryArgs:
    """Tell what the runs of several seeds come to: mean, interquartile mean, and their 95 % intervals."""

    folder: tyro.conf.Positional[Path]
    """Folder in which the folders of runs lie, such as train --seeds makes."""

    json: bool = False
    """Print it as JSON."""


def summary_command(args: SummaryArgs) -> None:
    """Run the command."""
    found = summaries(args.folder)
    if args.json:
        print(json.dumps([_plain(summary) for summary in found], indent=2))
    else:
        print_summaries(found)


def print_summaries(found: Sequence[Summary]) -> None:
    """Print each run's final scores, and beneath them what they come to."""
    for summary in found:
        print(printable(f"\n{summary.entry}"))
        for column in summary.columns:
            _print_column(column)
        if summary.unfinished:
            print(f"without a result yet: seeds {', '.join(map(str, summary.unfinished))}")
    if any(summary.columns for summary in found):
        print(
            "\nmean, std and worst of a seed: over fresh agents' mean returns. Intervals: where 95 % of\n"
            "bootstrap samples of the seeds' means lie; IQM: the mean of the middle half of these means."
        )


def _print_column(column: Column) -> None:
    policy = "deterministic" if column.deterministic else "stochastic"
    print(printable(f"{column.learners}, {policy}"))
    rows = [(str(seed), *score.figures) for seed, score in column.scores]
    print_columns(("seed", "mean", "std", "worst agent"), rows, left=())
    over = column.over_seeds
    n = digits(over.mean)
    intervals = (ends_text(ends, n) for ends in (over.mean_interval, over.iqm_interval))
    told = zip(("mean", "IQM"), (over.mean, over.iqm), intervals, strict=True)
    text = ", ".join(f"{name} {value:.{n}f}{ends and ' '}{ends}" for name, value, ends in told)
    print(f"over {over.n} seed{'s' if over.n > 1 else ''}: {text}, worst {over.worst:.{n}f}")


def _plain(summary: Summary) -> dict[str, Any]:
    """Return a summary as plain data."""
    columns = [
        {
            "learners": column.learners,
            "deterministic": column.deterministic,
            "over_seeds": dataclasses.asdict(column.over_seeds),
            "seeds": {
                str(seed): {key: value for key, value in score.to_dict().items() if key != "agent_means"}
                for seed, score in column.scores
            },
        }
        for column in summary.columns
    ]
    return {"entry": summary.entry, "unfinished": list(summary.unfinished), "columns": columns}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    run_command(SummaryArgs, summary_command, argv)


if __name__ == "__main__":
    main()
