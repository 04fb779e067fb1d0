"""An imitation that falls short of its expert says so."""

from __future__ import annotations

import pytest

from gym_taskdistill.dataset.score import Score
from gym_taskdistill.recipes.stages.imitate import say_if_far_behind


def score(mean: float, std: float) -> Score:
    return Score(
        learners="alpha_c",
        deterministic=False,
        n_agents=4,
        n_episodes=1,
        seed=0,
        env_id="Pendulum-v1",
        mean=mean,
        std=std,
        min=mean - std,
    )


@pytest.mark.parametrize(("mean", "said"), [(-1100, True), (-300, False), (-100, False)])
def test_agents_far_behind_their_expert_are_told(
    mean: float, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    say_if_far_behind(score(mean, 100), score(-200, 50))
    output = capsys.readouterr().out
    assert ("Little was learned from the expert" in output) == said
    assert ("-1100.0 ± 100.0, its own -200.0 ± 50.0" in output) == said


def test_an_expert_without_a_score_tells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    say_if_far_behind(score(-1100, 100), None)
    assert capsys.readouterr().out == ""
