"""Rankings: the results of an architecture search as rows, a CSV file and a figure."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gym_taskdistill import files
from gym_taskdistill.dataset.card import digits
from gym_taskdistill.errors import TaskDistillError, did_you_mean
from gym_taskdistill.uses.figures import FAINT, PathArg, new_figure, plain_text, save
from gym_taskdistill.uses.search import RANKED_BY, SearchResult, read_protocol, read_results
from gym_taskdistill.uses.traits import TRAITS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Architectures that a figure has room for.
MAX_DRAWN = 40

#: Settings of an architecture, each a column of the CSV file.
SETTINGS = ("width", "depth", "activation", "init", "layer_norm", "residual")


def ranked(results: Sequence[SearchResult], by: str = RANKED_BY) -> list[SearchResult]:
    """Sort results, the best first; those that failed come last.

    Where architectures are equal, the one with fewer parameters comes first.

    Args:
        results: The results.
        by: Name of the trait.

    Raises:
        TaskDistillError: There is no such trait.
    """
    if by not in TRAITS:
        raise TaskDistillError(
            f'There is no trait "{by}"; there are {", ".join(TRAITS)}.{did_you_mean(by, TRAITS)}'
        )
    sign = -1 if TRAITS[by] else 1

    def place(result: SearchResult) -> tuple[float, int, str]:
        value = result.traits.get(by)
        return math.inf if value is None else sign * value, result.parameters, result.architecture.name

    return sorted(results, key=place)


def measured(results: Sequence[SearchResult]) -> list[str]:
    """Return the names of the traits that results have."""
    return [name for name in TRAITS if any(name in result.traits for result in results)]


def columns(results: Sequence[SearchResult]) -> dict[str, dict[str, float]]:
    """Return the results' columns of numbers: values by the names of columns and of architectures."""
    done = [result for result in results if not result.failure]
    found = {
        name: {r.architecture.name: r.traits[name] for r in done if name in r.traits}
        for name in measured(done)
    }
    found["worst_return"] = {r.architecture.name: min(r.agent_returns) for r in done}
    found["parameters"] = {r.architecture.name: float(r.parameters) for r in done}
    return found


def table(results: Sequence[SearchResult]) -> tuple[list[str], list[list[str]]]:
    """Return a head and rows for people: an architecture each, with its traits rounded."""
    traits = measured(results)
    head = ["architecture", "parameters", *traits, "worst agent"]
    rows = []
    for result in results:
        row = [result.architecture.name, f"{result.parameters:,}"]
        for name in traits:
            value = result.traits.get(name)
            of_return = name not in ("distance", "loss")
            rounded = "" if value is None else f"{value:.{digits(value)}f}" if of_return else f"{value:.4g}"
            row.append(rounded or "failed")
        worst = min(result.agent_returns, default=None)
        rows.append([*row, "" if worst is None else f"{worst:.{digits(worst)}f}"])
    return head, rows


def write_csv(path: Path, results: Sequence[SearchResult]) -> None:
    """Write results as CSV, a line each: the architecture, its settings, its parameters and all traits.

    Args:
        path: The file; its folder must exist.
        results: The results, in the order of the lines.
    """
    head = ["architecture", *SETTINGS, "parameters", *TRAITS, "worst_return", "seconds", "failure"]
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for result in results:
            one = result.architecture
            writer.writerow(
                [
                    one.name,
                    *(getattr(one, name) for name in SETTINGS),
                    result.parameters,
                    *(result.traits.get(name, "") for name in TRAITS),
                    min(result.agent_returns, default=""),
                    result.seconds,
                    result.failure,
                ]
            )


def plot_search(folder: PathArg, path: PathArg | None = None, by: str = RANKED_BY) -> Figure:
    """Draw what a search found: a panel for each trait, an architecture in each line, the best at the top.

    Args:
        folder: The search's folder.
        path: File to save to, ``.png``, ``.pdf`` or ``.svg``; ``None`` only returns the figure.
        by: The trait that architectures are ranked by; the best `MAX_DRAWN` are drawn.

    Returns:
        The figure.

    Raises:
        TaskDistillError: The folder holds no results of a search, there is no such trait, or the file cannot
            be written.
    """
    read_protocol(Path(folder))
    results = [result for result in ranked(read_results(Path(folder)), by) if not result.failure][:MAX_DRAWN]
    if not results:
        raise TaskDistillError(f'The search in "{folder}" has no result yet; let it run longer.')
    traits = measured(results)
    figure = new_figure(2.2 + 2.0 * len(traits), 1.4 + 0.22 * len(results))
    panels = figure.subplots(1, len(traits), sharey=True, squeeze=False)[0]
    places = range(len(results))
    for panel, name in zip(panels, traits, strict=True):
        # Nothing but the search's own trait is sorted; the others tell how far they agree.
        values = [result.traits.get(name, math.nan) for result in results]
        panel.scatter(values, places, s=18, color="C0" if name == by else "C7")
        panel.set_xlabel(f"{name}\n({'more' if TRAITS[name] else 'less'} is better)", fontsize=8)
        panel.tick_params(axis="both", labelsize=7)
        panel.grid(color=FAINT)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(places, [plain_text(result.architecture.name) for result in results], fontsize=7)
    panels[0].invert_yaxis()
    save(figure, path)
    return figure
