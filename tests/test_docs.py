"""What the README shows is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gym_taskdistill import __main__

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_blocks_run(number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[number], f"README block {number}", "exec"), {})


def test_commands_exist() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if "gym_taskdistill" in line]
    modules = {shlex.split(line)[2] for line in lines}
    assert modules == {f"gym_taskdistill.{name}" for name in __main__.COMMANDS}
