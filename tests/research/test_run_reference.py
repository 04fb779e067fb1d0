"""The references are what they say: SB3's PPO, one action, and one agent's training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import run_reference


def measure(folder: Path, monkeypatch: pytest.MonkeyPatch, *argv: str) -> dict[str, Any]:
    monkeypatch.setattr(run_reference, "REFERENCES", folder)
    monkeypatch.setattr(run_reference, "N_EPISODES", 20)
    run_reference.main(argv)
    (path,) = folder.glob("*.json")
    result: dict[str, Any] = json.loads(path.read_text())
    assert result["task"] and result["versions"]
    return result


@pytest.mark.slow
def test_sb3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = measure(tmp_path, monkeypatch, "sb3", "Reacher-v4", "--total-timesteps", "512")
    assert result["num_timesteps"] == 512
    assert -150 < result["mean"] < -5


def test_one_action(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ("one-action", "cartpole", "--env-kwargs", "n=1", "--action", "1")
    result = measure(tmp_path, monkeypatch, *argv)
    assert result["action"] == 1
    assert 8 <= result["mean"] <= 13  # always to the right soon falls


def test_k_shot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = measure(tmp_path, monkeypatch, "k-shot", "cartpole", "--env-kwargs", "n=2")
    assert (result["k"], result["inner_steps"]) == (3, 1)
    assert 0 < result["seconds"] < 10
