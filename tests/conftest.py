"""What every test starts from: no display, one thread, a working directory and an empty zoo of its own."""

import os

# Read when the libraries are first imported, here or in a subprocess.
os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TASKDISTILL_ZOO"] = "/nowhere/zoo"  # while tests are collected

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo writes MUJOCO_LOG.TXT into the working directory, and runs go there by default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKDISTILL_ZOO", str(tmp_path / "own-zoo"))
