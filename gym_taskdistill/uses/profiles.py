"""Performance profiles: which share of fresh agents does better than a return, for every return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gym_taskdistill.dataset.aggregates import band
from gym_taskdistill.dataset.card import Card
from gym_taskdistill.dataset.score import Score
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.uses.figures import FAINT, PathArg, new_figure, plain_text, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Returns at which a profile is drawn.
N_POINTS = 201


def plot_profiles(
    cards: Mapping[str, Card],
    path: PathArg | None = None,
    learners: str | None = None,
    deterministic: bool = False,
) -> Figure:
    """Draw the performance profiles of datasets (Agarwal et al. 2021): the higher, the better.

    A card that keeps the scores of several distillations has its profile over the agents of all of them, with
    a band of the 95 % interval over distillations; else over the one dataset's agents, and the band too.

    Args:
        cards: Cards by what the legend calls them.
        path: File to save to, ``.png``, ``.pdf`` or ``.svg``; ``None`` only returns the figure.
        learners: What agents were drawn from, by the name that the card has; by default that of the card's
            first score.
        deterministic: Take the scores of deterministic policies.

    Returns:
        The figure.

    Raises:
        TaskDistillError: A card has no such score, or the file cannot be written.
    """
    found = {name: runs_of(name, card, learners, deterministic) for name, card in cards.items()}
    if not found:
        raise TaskDistillError("Performance profiles need at least one dataset.")
    everything = np.concatenate([run for runs in found.values() for run in runs])
    margin = 0.02 * (np.ptp(everything) or 1.0)
    returns = np.linspace(everything.min() - margin, everything.max() + margin, N_POINTS)
    figure = new_figure(7.2, 4.4)
    axes = figure.add_subplot()
    for number, (name, runs) in enumerate(found.items()):
        # Without several distillations the agents are the runs.
        curves = [profile(run, returns) for run in (runs if len(runs) > 1 else runs[0][:, None])]
        colour, dashes = f"C{number % 10}", ("-", "--", ":")[number // 10 % 3]
        what = f"{len(runs)} distillations" if len(runs) > 1 else f"{len(runs[0])} agents"
        label = plain_text(f"{name} ({what})")
        axes.plot(returns, np.mean(curves, axis=0), label=label, color=colour, linestyle=dashes)
        axes.fill_between(returns, *band(curves), color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("return")
    axes.set_ylabel("share of fresh agents that score more")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, path)
    return figure


def profile(scores: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """Return the share of scores above each return.

    >>> profile(np.array([1.0, 3.0]), np.array([0.0, 2.0, 3.0])).tolist()
    [1.0, 0.5, 0.0]
    """
    shares: np.ndarray = (scores[:, None] > returns).mean(axis=0)
    return shares


def runs_of(name: str, card: Card, learners: str | None, deterministic: bool) -> list[np.ndarray]:
    """Return the agents' mean returns of each distillation, of the dataset alone if there are no others."""
    wanted = learners or next((s.learners for s in card.scores if s.deterministic == deterministic), "")

    def of(scores: tuple[Score, ...]) -> np.ndarray:
        means = next(
            (s.agent_means for s in scores if (s.learners, s.deterministic) == (wanted, deterministic)), ()
        )
        return np.array(means)

    runs = [of(one.scores) for one in card.distillations]
    if len(runs) < 2 or not all(map(len, runs)):
        runs = [of(card.scores)]
    if not len(runs[0]):
        policy = "deterministic" if deterministic else "stochastic"
        raise TaskDistillError(
            f"The card of {name} does not keep the agents of a {policy} score"
            f"{f' of {wanted}' if wanted else ''}; make one by taskdistill evaluate --record."
        )
    return runs
