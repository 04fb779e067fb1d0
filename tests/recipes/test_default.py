"""The recipe of tasks that no file names learns, untouched but for fewer env steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.run import Run

SHORT = {
    "total_timesteps": 40_960,
    "evaluation.eval_freq": 20_480,
    "evaluation.n_agents": 4,
    "evaluation.final_agents": 8,
    "evaluation.final_episodes": 5,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "env_kwargs", "floor"),
    [("FrozenLake-v1", {"is_slippery": False}, 0.3), ("CartPole-v1", {}, 100)],  # random: 0.01 and 22
)
def test_it_learns_from_states_and_from_numbers(
    env_id: str, env_kwargs: dict[str, Any], floor: float, tmp_path: Path
) -> None:
    run = Run.create(load(env_id, env_kwargs, SHORT), 0, tmp_path)
    dataset = run.execute(progress_bar=False, device="cpu")
    assert dataset.rule.kind == "ridge"
    assert dataset.card.scores[0].mean > floor
