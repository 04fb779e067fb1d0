"""What work finds around it in processes that served before."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from gym_taskdistill import surroundings, trust
from gym_taskdistill.surroundings import Surroundings


def found(name: str) -> tuple[str, str | None, bool, bool]:
    module = importlib.util.find_spec(name) is not None
    return os.getcwd(), os.environ.get("TASKDISTILL_ZOO"), module, trust.is_allowed(name)


@pytest.mark.slow
def test_processes_find_what_is_around_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKDISTILL_ZOO", raising=False)
    names = ["found_here"] * 4
    before = list(surroundings.each(found, [(name,) for name in names], n_jobs=2))
    assert before == [(os.getcwd(), None, False, False)] * 4
    (tmp_path / "found_here.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TASKDISTILL_ZOO", "zoo")
    with trust.scope(["found_here"]):
        now = list(surroundings.each(found, [(name,) for name in names], n_jobs=2))
    assert now == [(str(tmp_path), "zoo", True, True)] * 4


def test_this_process_keeps_its_own_without_others() -> None:
    here = Surroundings.here()
    assert list(surroundings.each(pow, [(2, 3), (3, 2)], n_jobs=1)) == [8, 9]
    assert Surroundings.here() == here
