"""``python -m gym_taskdistill.plot``: a short run becomes a curve, and its dataset a figure."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from gym_taskdistill import zoo
from gym_taskdistill.cli import plot
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.run import Run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Distil for a moment: two meta-epochs, with an evaluation after each."""
    changes = {"n_envs": 8, "total_timesteps": 256, "n_learners": 2, "n_steps": 16, "batch_size": 64}
    tests = {"eval_freq": 128, "n_agents": 2, "n_episodes": 1, "final_agents": 2, "final_episodes": 1}
    recipe = load("CartPoleND-v0/n=2,k_min", None, {**changes, **tests}).replace(variant="short")
    run = Run.create(recipe, 0, tmp_path_factory.mktemp("runs"), "cartpole")
    run.execute(progress_bar=False, device="cpu")
    return run.folder


@pytest.mark.slow
def test_curves(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot.main(["curves", str(run_folder), "--out", "curves.svg"])
    assert capsys.readouterr().out == "curves.svg\n"
    assert Path("curves.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_rows_of_a_file(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot.main(["rows", str(run_folder / "dataset.safetensors")])
    assert capsys.readouterr().out == "rows.png\n"
    assert Path("rows.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_rows_of_a_zoo_entry(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(zoo, "data_root", lambda name: tmp_path / name)
    zoo.save(DistilledDataset.load(run_folder), tmp_path / "zoo")
    plot.main(["rows", "CartPoleND-v0", "--env-kwargs", "n=2", "--variant", "short", "--out", "rows.pdf"])
    assert Path("rows.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(SystemExit, match="1"):
        plot.main(["rows", "CartPoleND-v0", "--env-kwargs", "n=3"])
    assert "n=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curves"], "at least one run"),
        (["curves", "nowhere"], "not the folder of a run"),
        (["rows", "nowhere.safetensors"], "nowhere.safetensors"),
        (["rows", "CartPoleND-v0", "--env-kwargs", "n"], "key=value"),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        plot.main(arguments)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error


def test_a_wrong_suffix_is_refused(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        plot.main(["curves", str(run_folder), "--out", "curves.gif"])
    assert ".png, .pdf, .svg" in capsys.readouterr().err


def test_as_a_module(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "gym_taskdistill.cli.plot")
    monkeypatch.setattr(sys, "argv", ["plot", "curves", str(run_folder)])
    runpy.run_module("gym_taskdistill.cli.plot", run_name="__main__", alter_sys=True)
    assert capsys.readouterr().out == "curves.png\n"
    assert Path("curves.png").is_file()
