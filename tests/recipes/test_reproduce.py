"""Entries are made again from nothing, and compared with their cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from gym_taskdistill import zoo
from gym_taskdistill.cli import evaluate
from gym_taskdistill.cli import reproduce as command
from gym_taskdistill.dataset.aggregates import Aggregates
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.recipes import reproduce as reproducing
from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.recipe import Recipe
from gym_taskdistill.recipes.reproduce import Reproduction, chosen, reproduce

SHORT = {
    "total_timesteps": 2048,
    "n_envs": 16,
    "n_learners": 4,
    "n_steps": 32,
    "batch_size": 256,
    "n_agents": 2,
    "n_episodes": 1,
    "final_agents": 3,
    "final_episodes": 2,
}
ENTRY = "CartPoleND-v0/n=1,k_min"


def short(entry: str) -> Recipe:
    return load(entry, None, SHORT)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A short recipe in place of the library's, and empty zoos, the user's own and the shipped one."""
    monkeypatch.setattr(zoo, "data_root", lambda name: tmp_path / "shipped")
    monkeypatch.setattr(reproducing, "load", short)
    monkeypatch.setenv("TASKDISTILL_ZOO", str(tmp_path / "zoo"))


@pytest.mark.slow
def test_an_entry_that_the_zoo_lacks_is_made_by_its_recipe(quick: None, tmp_path: Path) -> None:
    (one,) = reproduce([ENTRY], [3], tmp_path / "out", progress_bar=False)
    assert (one.entry, one.seed, one.card) == (ENTRY, 3, None)
    assert one.dataset.card.seed == 3
    assert one.file == tmp_path / "out" / ENTRY / "seed=3" / "dataset.safetensors"


@pytest.mark.slow
def test_the_command_adds_what_selection_chose_and_makes_it_again(
    quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [ENTRY, "--seeds", "0-1", "--out", str(tmp_path / "out"), "--no-progress-bar"]
    command.main([*argv, "--add"])
    card = zoo.find(ENTRY).card
    assert not card.legacy
    assert [d.seed for d in card.distillations] == [0, 1]
    best = max(card.distillations, key=lambda d: d.selection_mean)
    assert (card.seed, zoo.find(ENTRY).load().digest) == (best.seed, best.digest)
    capsys.readouterr()
    tells_of_both = [ENTRY, "--seeds", "0-1", "--reproduced", str(tmp_path / "out"), "--no-progress-bar"]
    evaluate.main([*tells_of_both, "--agents", "4", "--episodes", "2", "--record"])
    out = capsys.readouterr().out
    assert "ships" in out and "over 2 distillations" in out and "over 8 agents" in out
    recorded = zoo.find(ENTRY).card
    assert [one.scores[0].n_agents for one in recorded.distillations] == [4, 4]
    (own,) = (one for one in recorded.distillations if one.seed == recorded.seed)
    assert own.scores == recorded.scores
    assert recorded.over_distillations == Aggregates.of([one.mean for one in recorded.distillations])
    with pytest.raises(SystemExit):
        evaluate.main([ENTRY, "--seeds", "0-2", "--reproduced", str(tmp_path / "out")])
    assert "reproduce CartPoleND-v0/n=1,k_min --seeds 2" in capsys.readouterr().err
    # From nothing in another folder, as the card says: equal, bit for bit.
    again = ["--out", str(tmp_path / "again"), "--no-progress-bar"]
    command.main([ENTRY, "--seeds", "0,1", "--jobs", "2", *again])
    assert capsys.readouterr().out.count("equal digest") == 4  # when each is done, and in the table
    command.main(["--all", "--seed", "5", "--out", str(tmp_path / "all"), "--no-progress-bar"])
    assert ENTRY in capsys.readouterr().out


@pytest.mark.slow
def test_the_dataset_of_the_best_selection_score_is_chosen(quick: None, tmp_path: Path) -> None:
    made = list(reproduce([ENTRY], [0, 1, 2], tmp_path / "out", progress_bar=False))
    changed = []
    for one, mean in zip(made, (5.0, 9.0, 7.0), strict=True):
        assert one.file is not None
        dataset = DistilledDataset.load(one.file)
        assert dataset.card.selection is not None
        # The test score says the opposite, and must not matter.
        scores = tuple(score.replace(mean=100 - mean) for score in dataset.card.scores)
        card = dataset.card.replace(selection=dataset.card.selection.replace(mean=mean), scores=scores)
        dataset.replace(card=card).save(one.file)
        changed.append(Reproduction(one.entry, one.seed, None, one.file))
    assert chosen(changed).card.seed == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "Name an entry"),
        (["CartPoleND-v0/n=2,k_mni"], 'Did you mean "k_min"'),
        ([ENTRY, "--seeds", "4-"], "--seeds must be"),
        ([ENTRY, "--seeds", "1,1"], "each seed once"),
        ([ENTRY, "--seeds", "0-2", "--seed", "1"], "not both"),
        ([ENTRY, "--seed", "-1"], "seed must be"),
    ],
)
def test_mistakes(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(argv)
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
