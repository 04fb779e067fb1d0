"""Tracked runs: what is told to Weights & Biases, in which order, and that the run is the same."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gym_taskdistill.cli import train
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.recipes.tracking import tracked

SHORT = ["total_timesteps=512", "n_envs=8", "n_learners=4", "n_steps=32", "batch_size=128"]
SHORT += ["n_agents=2", "n_episodes=1", "final_agents=3", "final_episodes=2"]
ENTRY = "CartPoleND-v0/n=1,k_min"


class Wandb(ModuleType):
    """A stand-in for wandb that writes down what it is told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.summary: dict[str, float] = {}
        self.ended: list[int | None] = []
        self.before: list[list[Path]] = []

    def init(
        self,
        *,
        project: str | None = None,
        dir: str | None = None,
        id: str | None = None,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        group: str | None = None,
        resume: str | None = None,
        sync_tensorboard: bool | None = None,
    ) -> Wandb:
        assert dir is not None
        self.before.append(list(Path(dir).glob("*/events.*")))
        self.begun.append({key: value for key, value in locals().items() if key != "self"})
        return self

    def finish(self, exit_code: int | None = None) -> None:
        self.ended.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    stand_in = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return stand_in


@pytest.mark.slow
def test_a_run_is_tracked_and_stays_the_same(wandb: Wandb, tmp_path: Path) -> None:
    argv = [ENTRY, "--no-progress-bar", "--seed", "3", "--set", *SHORT]
    train.main([*argv, "--out", str(tmp_path / "a"), "--track"])
    train.main([*argv, "--out", str(tmp_path / "b")])
    (run,) = (tmp_path / "a").iterdir()
    dataset = DistilledDataset.load(run)
    assert dataset.digest == DistilledDataset.load(next((tmp_path / "b").iterdir())).digest
    (begun,) = wandb.begun
    assert begun["sync_tensorboard"] is True and begun["dir"] == str(run)
    assert wandb.before == [[]] and list(run.glob("*/events.*"))  # begun before anything was written
    assert (begun["project"], begun["group"], begun["name"]) == ("gym-taskdistill", ENTRY, f"{ENTRY} seed=3")
    assert begun["config"] == {"recipe": dataset.card.recipe, "seed": 3}
    assert wandb.summary["test/alpha_c/stochastic/mean"] == dataset.card.scores[0].mean
    assert wandb.ended == [None]
    train.main(["--resume", str(run), "--no-progress-bar", "--track"])  # which is done
    assert len(wandb.begun) == 1


def test_what_ends_early_says_so_and_resumes(wandb: Wandb, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), tracked(tmp_path, ENTRY, 0, {}):
            raise KeyboardInterrupt
    assert wandb.ended == [1, 1]
    first, second = wandb.begun
    assert first["id"] == second["id"] and second["resume"] == "allow"


def test_mistakes(
    wandb: Wandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("No API key configured.\nUse `wandb login`.")

    monkeypatch.setattr(wandb, "init", refuse)
    argv = [ENTRY, "--no-progress-bar", "--out", str(tmp_path / "out"), "--track"]
    with pytest.raises(SystemExit, match="1"):
        train.main(argv)
    error = capsys.readouterr().err
    assert "No API key configured. Log in by `wandb login`" in error and error.count("\n") == 1
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SystemExit, match="1"):
        train.main([*argv[:-2], str(tmp_path / "none"), "--track"])
    assert 'pip install "gym-taskdistill[track]"' in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_stand_in_has_wandbs_signature() -> None:
    library = pytest.importorskip("wandb")
    known = inspect.signature(library.init).parameters
    for parameter in list(inspect.signature(Wandb.init).parameters.values())[1:]:
        assert known[parameter.name].default is None
    assert "exit_code" in inspect.signature(library.Run.finish).parameters
