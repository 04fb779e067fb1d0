"""Profiles are shares of agents, over distillations where a card keeps several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gym_taskdistill import zoo
from gym_taskdistill.cli import plot
from gym_taskdistill.dataset.card import Card, Score
from gym_taskdistill.dataset.lineage import Distillation
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.uses.profiles import plot_profiles, runs_of


def score(*means: float, deterministic: bool = False) -> Score:
    return Score(
        learners="alpha_c",
        deterministic=deterministic,
        n_agents=len(means),
        n_episodes=1,
        seed=0,
        env_id="CartPoleND-v0",
        mean=float(np.mean(means)),
        std=float(np.std(means)),
        min=min(means),
        agent_means=means,
    )


def card(*runs: Score) -> Card:
    """The card of several distillations, the first of which ships."""
    told = tuple(
        Distillation(
            seed=i, digest="0" * 64, selection_mean=0, mean=s.mean, std=s.std, min=s.min, scores=(s,)
        )
        for i, s in enumerate(runs)
    )
    return zoo.find("CartPoleND-v0/n=1,k_min").card.replace(scores=runs[:1], distillations=told)


def test_a_profile_is_the_share_above() -> None:
    one = card(score(100.0, 200.0, 300.0, 400.0))
    axes = plot_profiles({"one": one}).axes[0]
    returns, shares = axes.lines[0].get_data()
    assert shares[0] == 1.0 and shares[-1] == 0.0
    assert np.interp(250.0, returns, shares) == 0.5
    assert axes.get_legend().get_texts()[0].get_text() == "one (4 agents)"


def test_the_band_is_over_distillations() -> None:
    """Equal distillations leave no doubt, whatever their agents; unequal ones do."""
    sure, unsure = card(score(0.0, 500.0), score(0.0, 500.0)), card(score(0.0, 0.0), score(500.0, 500.0))
    for one, width in ((sure, 0.0), (unsure, 1.0)):
        axes = plot_profiles({"one": one}).axes[0]
        band = axes.collections[0].get_paths()[0].vertices
        at = band[np.isclose(band[:, 0], 250.0), 1]
        assert at.max() - at.min() == width
        assert "2 distillations" in axes.get_legend().get_texts()[0].get_text()


def test_without_all_distillations_agents_are_the_runs() -> None:
    whole = card(score(1.0, 2.0), score(3.0, 4.0))
    assert [run.tolist() for run in runs_of("x", whole, None, False)] == [[1.0, 2.0], [3.0, 4.0]]
    bare = whole.replace(distillations=tuple(d.replace(scores=()) for d in whole.distillations))
    assert [run.tolist() for run in runs_of("x", bare, None, False)] == [[1.0, 2.0]]


def test_a_score_that_a_card_lacks() -> None:
    with pytest.raises(TaskDistillError, match="stochastic score of xavier"):
        plot_profiles({"one": card(score(1.0))}, learners="xavier")
    with pytest.raises(TaskDistillError, match="deterministic score"):
        plot_profiles({"one": card(score(1.0))}, deterministic=True)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    plot.main(["profile", "CartPoleND-v0/n=1,k_min", "CartPoleND-v0/n=5,k_min", "--out", "p.svg"])
    assert capsys.readouterr().out == "p.svg\n"
    assert Path("p.svg").read_text().startswith("<?xml")
