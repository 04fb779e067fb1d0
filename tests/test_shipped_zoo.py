"""Every entry that ships: read from its file and played again, it scores what its card says."""

from __future__ import annotations

import math

import pytest

from gym_taskdistill import zoo
from gym_taskdistill.learners import NAMED_LEARNERS
from gym_taskdistill.paths import data_root
from gym_taskdistill.policies.evaluation import evaluate

#: Games of Atari are long.
N_AGENTS, N_PLAYERS = 8, 2


def entries() -> list[object]:
    """Every entry; those whose episodes take seconds each are left to ``-m long``, as are v5's equal rows."""
    found = zoo.entries(root=data_root("zoo"))
    long = [any(name in entry.env_id for name in ("NoFrameskip", "Humanoid", "-v5")) for entry in found]
    return [
        pytest.param(entry, id=entry.name, marks=pytest.mark.long if is_long else ())
        for entry, is_long in zip(found, long, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("entry", entries())
def test_an_entry_scores_what_its_card_says(entry: zoo.ZooEntry) -> None:
    dataset = entry.load()
    recorded = dataset.card.scores[0]
    n_agents = N_PLAYERS if "NoFrameskip" in entry.env_id else N_AGENTS
    result = evaluate(
        dataset,
        n_agents,
        1,
        learners=recorded.learners if recorded.learners in NAMED_LEARNERS else None,
        deterministic=recorded.deterministic,
        seed=77,
    )
    # Five standard errors of the difference, and a little for entries that hardly vary. Where few agents
    # fall, none of these may, so that their spread says little; where a card's means are over many episodes,
    # these vary more.
    std = max(result.std, recorded.std)
    error = std * math.sqrt(1 / (n_agents - 1) + 1 / recorded.n_agents)
    assert result.mean == pytest.approx(recorded.mean, abs=5 * error + 0.02 * abs(recorded.mean))
