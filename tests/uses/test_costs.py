"""What an agent costs: timed where it can be, told where it was measured, and unknown elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gym_taskdistill import zoo
from gym_taskdistill.cli import cost
from gym_taskdistill.dataset.card import Card
from gym_taskdistill.dataset.lineage import StageRecord
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.uses.costs import COLUMNS, Costs, costs, distilling_seconds, ppo_seconds, time_training

ENTRY = "CartPoleND-v0/n=2,k_min"


def card(*stages: tuple[str, float], **changes: object) -> Card:
    """The card of the entry with other stages."""
    lineage = [
        StageRecord(
            kind=kind, settings={}, task="CartPoleND-v0 n=2", seed=0, seconds=seconds, output="0" * 64
        )
        for kind, seconds in stages
    ]
    return zoo.find(ENTRY).card.replace(lineage=lineage, **changes)


@pytest.mark.parametrize(
    ("distilling", "one", "ppo"),
    [(100.0, 1.0, 11.0), (100.1, 1.0, 11.0), (5.0, 0.001, 60.0), (7.0, 2.0, 2.5)],
)
def test_from_that_number_of_agents_on_it_is_cheaper(distilling: float, one: float, ppo: float) -> None:
    n = Costs("task", 3, 1, distilling, one, ppo).pays_off_from
    assert n is not None and n >= 1
    assert distilling + n * one <= n * ppo
    assert n == 1 or distilling + (n - 1) * one > (n - 1) * ppo


@pytest.mark.parametrize(("distilling", "ppo"), [(None, 5.0), (5.0, None), (5.0, 1.0), (5.0, 0.5)])
def test_it_never_pays_off_or_nobody_knows(distilling: float | None, ppo: float | None) -> None:
    one = Costs("task", 3, 1, distilling, 1.0, ppo)
    assert one.pays_off_from is None and one.rows()[-1][-1] == "–"
    assert all(len(row) == len(COLUMNS) for row in one.rows())


def test_ppo_is_looked_up_from_the_nearest_on(tmp_path: Path) -> None:
    bare, own = card(("ppmo", 9.0)), card(("ppo", 30.0), ("imitate", 5.0))
    other_task = own.replace(env_kwargs={"n": 3})
    assert ppo_seconds(bare, None) is None and ppo_seconds(bare, tmp_path, [bare, other_task]) is None
    assert ppo_seconds(bare, tmp_path, [bare, own.replace(variant="expert")]) == (
        30.0,
        "the stage ppo of CartPoleND-v0 n=2, expert",
    )
    for seed, seconds in enumerate((10.0, 20.0)):
        file = tmp_path / f"CartPoleND-v0 n=2,ppmo,seed={seed}.json"
        file.write_text(json.dumps({"wall_clock_s": seconds}))
    (tmp_path / "CartPoleND-v0 n=3,ppmo,seed=0.json").write_text(json.dumps({"wall_clock_s": 99.0}))
    assert ppo_seconds(bare, tmp_path, [own]) == (15.0, f"2 references in {tmp_path}")
    assert ppo_seconds(own, tmp_path) == (30.0, "the stage ppo of its own lineage")
    for text in ("[1]", "{", '{"wall_clock_s": "10"}', '{"wall_clock_s": -1}', '{"wall_clock_s": NaN}'):
        file.write_text(text)
        with pytest.raises(TaskDistillError, match="is damaged"):
            ppo_seconds(bare, tmp_path)


def test_distilling_is_what_all_stages_took() -> None:
    shot = {"k": 3, "inner_steps": 1, "seconds": 0.5}
    assert distilling_seconds(card(("ppo", 30.0), ("imitate", 5.0))) == 35.0
    assert costs(card(("ppo", 30.0), ("imitate", 5.0)), shot, 30.0).distilling == 35.0
    legacy = card(wall_clock_s=90.0, recipe={"warm_start": "another"})
    assert costs(legacy, shot, 30.0).distilling is None  # of which it tells the last part alone
    from_nothing = card(
        wall_clock_s=90.0, recipe={"n_envs": 4, "ppmo": {"n_steps": 5}, "total_timesteps": 50}
    )
    assert costs(from_nothing, shot, 30.0) == Costs("CartPoleND-v0 n=2", 3, 1, 90.0, 0.5, 30.0, (20, 3))


def test_many_at_once_cost_less_each() -> None:
    dataset = zoo.load(ENTRY)
    one, many = time_training(dataset, n_timed=5), time_training(dataset, 200, n_timed=5)
    assert (one["k"], one["inner_steps"], one["n_agents"], many["n_agents"]) == (3, 1, 1, 200)
    assert 0 < many["seconds"] < one["seconds"] < 10
    with pytest.raises(TaskDistillError, match="At least 1 agent"):
        time_training(dataset, 0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "CartPoleND-v0 n=2,ppmo,seed=0.json").write_text(json.dumps({"wall_clock_s": 40.0}))
    argv = [ENTRY, "--references", str(tmp_path), "--agents", "20"]
    cost.main(argv)
    out = capsys.readouterr().out
    assert "3-shot on the rows" in out and f"told by 1 reference in {tmp_path}" in out
    cost.main([*argv, "--json"])
    told = json.loads(capsys.readouterr().out)
    entry = zoo.find(ENTRY)
    assert told["distilling"] == distilling_seconds(entry.card) and told["ppo"] == 40.0
    assert told["agents_at_once"] == 20 and 0 < told["one_agent_at_once"] < told["one_agent"]
    assert f"from {told['pays_off_from']} agents on" in out
    (tmp_path / "CartPoleND-v0 n=2,ppmo,seed=0.json").unlink()
    cost.main(argv)
    assert "What PPO takes is unknown" in capsys.readouterr().out
    for bad, message in (
        (["--agents", "0"], "--agents must be at least 1"),
        (["--references", "nowhere"], 'no folder "nowhere"'),
    ):
        with pytest.raises(SystemExit, match="1"):
            cost.main([ENTRY, *bad])
        assert message in capsys.readouterr().err
