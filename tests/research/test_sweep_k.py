"""The sweep distils what it says into k rows, and its table tells seeds apart from k."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sweep_k
from sweep_k import Point

from gym_taskdistill.dataset.dataset import DistilledDataset

SHORT = ("total_timesteps=512", "n_envs=8", "n_learners=2", "n_steps=32", "batch_size=64")
TESTS = ("eval_freq=512", "n_agents=2", "n_episodes=1", "final_agents=2", "final_episodes=1")


@pytest.mark.slow
def test_a_short_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--axes", "1", "--seeds", "0,3", "--out", str(tmp_path), "--set", *SHORT, *TESTS]
    sweep_k.main(argv)
    first = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("Nothing was")]
    points = json.loads((tmp_path / "sweep_k.json").read_text())
    assert [(p["n"], p["k"], p["seed"]) for p in points] == [(1, 1, 0), (1, 1, 3), (1, 2, 0), (1, 2, 3)]
    made = DistilledDataset.load(tmp_path / "n=1,k=1" / "seed=3" / "dataset.safetensors")
    assert (made.k, made.card.seed, made.card.variant) == (1, 3, "k1")
    assert (tmp_path / "sweep_k.png").read_bytes().startswith(b"\x89PNG")
    sweep_k.main(argv)  # nothing is made again
    assert capsys.readouterr().out.splitlines() == first


def test_the_table() -> None:
    points = [Point(1, 1, 0, 10.0, 0, 0), Point(1, 2, 0, 500.0, 0, 0), Point(1, 2, 1, 490.0, 0, 0)]
    points += [Point(2, k, 0, 100.0 * k, 0, 0) for k in (1, 2, 3, 4)]
    head, _, one, two, *_ = sweep_k.table(points).splitlines()
    assert head == "| task | k = 1 | k = 2 | k = 3 | k = 4 |"
    assert one == "| 1D | 10.0 † | **495.0 ± 7.1** |  |  |"
    assert two == "| 2D | 100.0 | 200.0 † | **300.0** | 400.0 |"
