"""Every entry that ships: read from its file and played again, it scores what its card says."""

from __future__ import annotations

import math

import pytest

from gym_taskdistill import zoo
from gym_taskdistill.evaluation import evaluate

N_AGENTS = 16


@pytest.mark.parametrize("entry", zoo.entries(), ids=lambda entry: entry.name)
def test_an_entry_scores_what_its_card_says(entry: zoo.ZooEntry) -> None:
    dataset = entry.load()
    recorded = dataset.card.scores[0]
    result = evaluate(
        dataset,
        N_AGENTS,
        1,
        learners=None if recorded.learners.startswith("{") else recorded.learners,
        deterministic=recorded.deterministic,
        seed=77,
    )
    # Five standard errors of the difference, and a little for entries that hardly vary.
    error = math.sqrt(result.std**2 / (N_AGENTS - 1) + recorded.std**2 / recorded.n_agents)
    assert result.mean == pytest.approx(recorded.mean, abs=5 * error + 0.02 * abs(recorded.mean))
