"""Learning curves: how fresh agents scored in the course of runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gym_taskdistill.dataset.aggregates import band
from gym_taskdistill.dataset.card import bare_id
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.recipes.run import Run
from gym_taskdistill.tasks import Task
from gym_taskdistill.uses.figures import CART_POLES, FAINT, PathArg, new_figure, plain_text, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Curve:
    """A curve with its band, all of shape ``(n_tests,)`` but for the label."""

    label: str
    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def plot_learning_curves(
    run_folders: Iterable[PathArg], path: PathArg | None = None, over_seeds: bool = False
) -> Figure:
    """Draw how fresh agents scored in the course of runs.

    Args:
        run_folders: Folders of runs, as `gym_taskdistill.train` makes them.
        path: File to save to, ``.png``, ``.pdf`` or ``.svg``; ``None`` only returns the figure.
        over_seeds: Draw a curve for each recipe, the mean over its runs, with a band of the 95 % interval
            over them. Else each run becomes a curve, with a band of one standard deviation over agents.

    Returns:
        The figure.

    Raises:
        TaskDistillError: A folder holds no run, or no evaluation yet, or the file cannot be written.
    """
    runs = [Run.open(folder) for folder in dict.fromkeys(map(Path, run_folders))]
    if not runs:
        raise TaskDistillError("Learning curves need the folder of at least one run.")
    curves = _curves_over_seeds(runs) if over_seeds else _curves_over_agents(runs)
    figure = new_figure(7.2, 4.4)
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        # There are ten colours; the eleventh run is told apart by its dashes.
        colour, dashes = f"C{number % 10}", ("-", "--", ":")[number // 10 % 3]
        label = plain_text(curve.label)
        axes.plot(curve.steps, curve.mean, marker=".", label=label, color=colour, linestyle=dashes)
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("mean return of fresh agents")
    axes.xaxis.set_major_formatter(_step_formatter())
    axes.grid(color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, path)
    return figure


def _curves_over_agents(runs: Sequence[Run]) -> list[Curve]:
    curves = []
    for run, label in zip(runs, _run_labels(runs), strict=True):
        steps, mean, std, worst = _history(run)
        # No agent was worse than the worst or better than the task allows, whatever the deviation says.
        lower, upper = np.maximum(mean - std, worst), np.minimum(mean + std, _best_return(run))
        curves.append(Curve(label, steps, mean, lower, upper))
    return curves


def _curves_over_seeds(runs: Sequence[Run]) -> list[Curve]:
    groups: list[list[Run]] = []
    for run in runs:
        same = next((group for group in groups if group[0].recipe == run.recipe), None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    labels = [group[0].recipe.entry for group in groups]
    if len(set(labels)) < len(labels):
        labels = _run_labels([group[0] for group in groups])
    return [_mean_curve(f"{label} ({len(g)} seeds)", g) for label, g in zip(labels, groups, strict=True)]


def _mean_curve(label: str, runs: Sequence[Run]) -> Curve:
    """Return the mean of runs, at the tests that all of them have had."""
    seeds = [run.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        raise TaskDistillError(f"Two runs of {label} have one seed; name one of them.")
    histories = [dict(zip(steps, mean, strict=True)) for steps, mean, *_ in map(_history, runs)]
    common = sorted(set.intersection(*map(set, histories)))
    if not common:
        raise TaskDistillError(f"The runs of {label} have no test in common; let them run longer.")
    means = np.array([[history[step] for step in common] for history in histories])
    return Curve(label, np.array(common), means.mean(axis=0), *band(means))


def _history(run: Run) -> np.ndarray:
    """Return the tests of a run, ``(4, n)``: env steps, mean, deviation and worst agent."""
    rows = run.evaluations()
    if not rows:
        raise TaskDistillError(f'The run "{run.folder}" has no evaluation yet; let it run longer.')
    return np.array(rows).T


def _run_labels(runs: Sequence[Run]) -> list[str]:
    """Name runs by their folders, with as many parents as it takes, and their seeds where these differ."""
    parts = [run.folder.resolve().parts for run in runs]
    depth = 1
    while len({p[-depth:] for p in parts}) < len({*parts}):
        depth += 1
    labels = ["/".join(p[-depth:]) for p in parts]
    # Runs of one recipe differ by nothing else.
    return [
        f"{label} (seed {run.seed})" if [r.recipe for r in runs].count(run.recipe) > 1 else label
        for label, run in zip(labels, runs, strict=True)
    ]


def _best_return(run: Run) -> float:
    """Best return of an episode, infinite where it is not known."""
    if bare_id(run.recipe.env_id) not in CART_POLES:
        return math.inf
    return Task(run.recipe.env_id, run.recipe.env_kwargs).spec.max_episode_steps or math.inf


def _step_formatter() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")
