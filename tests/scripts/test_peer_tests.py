"""The peers' tests are re-pointed, run and counted."""

from __future__ import annotations

from pathlib import Path

import peer_tests
import pytest

TESTS = """
import gymnasium as gym


def test_of_ours():
    assert gym.make("CartPole-v1").spec.id == "CartPoleND-v0"


def test_that_fails():
    assert gym.make("CartPole-v1").observation_space.shape == (5,)


def test_of_theirs():
    gym.make("Acrobot-v1")


def test_pygame_selective_init():
    raise AssertionError("not run")
"""


@pytest.mark.slow
def test_what_meets_ours_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tests" / "envs" / "test_some.py"
    file.parent.mkdir(parents=True)
    file.write_text(TESTS)
    peer_tests.main(["--gymnasium", str(tmp_path), "--suite", "CartPoleND-v0"])
    first, failed, left_out = capsys.readouterr().out.splitlines()
    assert "1 of 2 passed (50.0%), 0 skip themselves, 1 do not apply" in first
    assert "test_that_fails" in failed and "pygame" in left_out
    assert file.read_text() == TESTS


def test_a_tree_without_tests_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no folder"):
        peer_tests.prepare(peer_tests.SUITES[0], tmp_path, tmp_path / "copy")
