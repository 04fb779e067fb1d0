"""Runs of several seeds: made as one, resumed as one, ended as one, and what they come to."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from gym_taskdistill.cli import summary, train
from gym_taskdistill.dataset.aggregates import Aggregates
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.recipes import group as grouping
from gym_taskdistill.recipes.file import load
from gym_taskdistill.recipes.group import group_folder, summaries, train_group
from gym_taskdistill.recipes.recipe import Recipe

SHORT = {
    "total_timesteps": 512,
    "n_envs": 8,
    "n_learners": 4,
    "n_steps": 32,
    "batch_size": 128,
    "n_agents": 2,
    "n_episodes": 1,
    "final_agents": 3,
    "final_episodes": 2,
}
ENTRY = "CartPoleND-v0/n=1,k_min"


def command(out: Path, seeds: str, **changes: Any) -> list[str]:
    settings = [f"{key}={value}" for key, value in {**SHORT, **changes}.items()]
    return [ENTRY, "--seeds", seeds, "--out", str(out), "--no-progress-bar", "--set", *settings]


@pytest.mark.slow
def test_an_interrupted_group_is_resumed_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "CartPoleND-v0,n=1,k_min"
    build, built = grouping.build, []

    def interrupted(recipe: Recipe, seed: int, *args: Any, **options: Any) -> Any:
        if seed == 1:
            raise KeyboardInterrupt
        return build(recipe, seed, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(grouping, "build", interrupted)
        train.main(command(tmp_path, "0-1"))
    assert ended.value.code == 130 and "same command resumes" in capsys.readouterr().out
    first = folder / "seed=0" / "dataset.safetensors"
    before = first.stat().st_mtime_ns

    def counted(recipe: Recipe, seed: int, *args: Any, **options: Any) -> Any:
        built.append(seed)
        return build(recipe, seed, *args, **options)

    monkeypatch.setattr(grouping, "build", counted)
    train.main(command(tmp_path, "0-1"))
    assert built == [0, 1] and first.stat().st_mtime_ns == before
    printed = capsys.readouterr().out
    datasets = [DistilledDataset.load(folder / f"seed={seed}") for seed in (0, 1)]
    assert [dataset.card.seed for dataset in datasets] == [0, 1]
    assert datasets[0].digest != datasets[1].digest
    means = [dataset.card.scores[0].mean for dataset in datasets]
    assert f"over 2 seeds: mean {sum(means) / 2:.1f} [{min(means):.1f}, {max(means):.1f}]" in printed
    summary.main([str(folder), "--json"])
    (told,) = json.loads(capsys.readouterr().out)
    assert told["entry"] == ENTRY and told["unfinished"] == []
    (column,) = told["columns"]
    assert {seed: score["mean"] for seed, score in column["seeds"].items()} == dict(
        zip("01", means, strict=True)
    )
    over = Aggregates.of(means)
    assert (column["over_seeds"]["iqm"], column["over_seeds"]["n"]) == (over.iqm, 2)
    assert column["over_seeds"]["iqm_interval"] == list(over.iqm_interval or ())
    # A run without a result, one of other settings, and a copy.
    (folder / "seed=1" / "dataset.safetensors").unlink()
    assert summaries(folder)[0].unfinished == (1,)
    with pytest.raises(TaskDistillError, match="other settings"):
        next(train_group(load(ENTRY, None, {**SHORT, "gamma": 0.5}), [7, 0], folder))
    assert not (folder / "seed=7").exists()
    shutil.copytree(folder / "seed=0", folder / "again")
    with pytest.raises(TaskDistillError, match="made twice with seed 0"):
        summaries(folder)


@pytest.mark.slow
def test_ctrl_c_ends_all_runs(tmp_path: Path) -> None:
    argv = [*command(tmp_path, "0-1", total_timesteps=10_000_000), "--jobs", "2"]
    process = subprocess.Popen([sys.executable, "-m", "gym_taskdistill.train", *argv])
    folder = group_folder(tmp_path, load(ENTRY))
    try:
        deadline = time.monotonic() + 300
        while len(list(folder.glob("seed=*/1-ppmo/best.safetensors"))) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.5)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.send_signal(signal.SIGINT)  # to this process alone, unlike a terminal's
        assert process.wait(120) == 130
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", "4-"], "--seeds must be"),
        (["--seeds", "0-1", "--seed", "1"], "not both"),
        (["--seeds", "0-1", "--tune", "3"], "--tune is for one run"),
        (["--seeds", "0-1", "--resume", "runs/x"], "without --resume"),
        (["--seeds", "0-1", "--jobs", "0"], "At least 1 run"),
        (["--seeds", "0-1", "--set", "batch_size=7"], "batch_size=7 must be a multiple"),
        (["--jobs", "2"], "give --seeds"),
    ],
)
def test_mistakes(argv: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train.main([ENTRY, "--out", str(tmp_path / "out"), *argv])
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SystemExit):
            summary.main([str(folder)])
        assert "holds no folders of runs" in capsys.readouterr().err
