"""Progress in a log: few lines, the last of them always."""

from __future__ import annotations

import pytest

from gym_taskdistill import progress as module
from gym_taskdistill.progress import progress


def test_few_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with progress(1000, "episode") as bar:
        for i in range(1000):
            now[0] += 0.1
            bar.update()
            bar.set_postfix_str(f"score {i}")  # draws at once on a terminal
    lines = capsys.readouterr().err.splitlines()
    assert "1000/1000" in lines[-1] and "score 999" in lines[-1]
    assert 4 <= len(lines) <= 6 and all(line.strip() for line in lines)


def test_nothing_where_nothing_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(3, "episode", shown=False) as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""
