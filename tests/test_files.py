"""Files are whole or absent, sealed ones refuse every damage, and locks keep others out."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gym_taskdistill import files
from gym_taskdistill.distill import checkpoint
from gym_taskdistill.errors import TaskDistillError

TENSORS = {
    "weights": torch.randn(3, 4),
    "wide": torch.randn(2, dtype=torch.float64),
    "count": torch.tensor(2**60),
    "half": torch.ones(2, dtype=torch.bfloat16),
    "none": torch.zeros(0, 3),
    "flags": torch.tensor([True, False]),
    "nan": torch.tensor(float("nan")),
}
META = {"steps": 3, "text": "± \x07", "list": [1, 2.5, None]}


def test_sealed_files_come_back_exactly(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    given = TENSORS | {"a": shared[:3], "b": shared[3:], "t": shared.reshape(2, 3).T}
    files.write_sealed(tmp_path / "s", given, META)
    tensors, meta = files.read_sealed(tmp_path / "s")
    assert meta == META and tensors.keys() == given.keys()
    for name, tensor in given.items():
        assert tensors[name].dtype == tensor.dtype
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0, equal_nan=True)
    assert files.sealed(given, META) == (tmp_path / "s").read_bytes()


def refused(path: Path, content: bytes, read: Any) -> None:
    path.write_bytes(content)
    with pytest.raises(TaskDistillError) as raised:
        read(path)
    assert path.name in str(raised.value) and "\n" not in str(raised.value)


def flips(content: bytes, n: int) -> Any:
    """All bits of the head and ``n`` of the rest, each flipped alone."""
    for bit in [*range(1200), *random.Random(0).sample(range(8 * len(content)), n)]:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def test_sealed_files_refuse_every_flipped_bit(tmp_path: Path) -> None:
    content = files.sealed(TENSORS, META)
    for damaged in flips(content, 600):
        refused(tmp_path / "s", damaged, files.read_sealed)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 100, b"{}", files.sealed({}, {}) + b"\0"])
def test_sealed_files_refuse_other_content(content: bytes, tmp_path: Path) -> None:
    refused(tmp_path / "s", content, files.read_sealed)


def test_sealed_files_refuse_truncation(tmp_path: Path) -> None:
    content = files.sealed(TENSORS, META)
    for length in range(0, len(content), 29):
        refused(tmp_path / "s", content[:length], files.read_sealed)
    with pytest.raises(TaskDistillError, match="cannot be read: No such file"):
        files.read_sealed(tmp_path / "none")


STATE = {
    "optimizer": {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 2)}, 1: {}},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "fused": None, "params": [0, 1]}],
    },
    "moments": [torch.tensor(1.25, dtype=torch.float64), 1e300, float("inf")],
    "tensor": {"tensor": "a key of this name", "": []},
    "text": "x",
    "n": 2**62,
}


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "c", STATE)
    state = checkpoint.read(tmp_path / "c")
    assert repr(state) == repr(STATE)
    assert state["moments"][0].dtype == torch.float64
    assert list(state["optimizer"]["state"]) == [0, 1]


def test_a_checkpoint_refuses_every_flipped_bit(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "c", STATE)
    for damaged in flips((tmp_path / "c").read_bytes(), 300):
        refused(tmp_path / "c", damaged, checkpoint.read)
    for content in (b"", b"not a checkpoint", files.sealed({}, {}), files.sealed({}, {"state": {"x": 1}})):
        refused(tmp_path / "c", content, checkpoint.read)


def test_a_checkpoint_holds_no_objects(tmp_path: Path) -> None:
    for value in (object(), {(1, 2): 3}, {1, 2}, len):
        with pytest.raises(TaskDistillError, match="A checkpoint cannot hold a"):
            checkpoint.write(tmp_path / "c", {"a": value})
    assert not list(tmp_path.iterdir())


# --- writing ------------------------------------------------------------------------------------


def test_files_are_flushed_before_they_take_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    files.write_text(tmp_path / "a", "text")
    assert events == ["fsync", "rename", "fsync"]  # file, name, folder
    events.clear()
    files.write_all({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert events == ["fsync", "fsync", "rename", "rename", "fsync"]


@pytest.mark.parametrize("write", ["text", "sealed", "checkpoint"])
def test_a_full_disk_leaves_the_old_file(write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TaskDistillError, match=r'^".*file" cannot be written: No space left on device\.$'):
        match write:
            case "text":
                files.write_text(path, "new")
            case "sealed":
                files.write_sealed(path, TENSORS, META)
            case "checkpoint":
                checkpoint.write(path, STATE)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_gone_or_a_file_or_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(TaskDistillError, match="there is no folder"):
        files.write_text(tmp_path / "none" / "a", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TaskDistillError, match="cannot be written: Is a directory"):
        files.write_text(tmp_path / "folder", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_cannot_be_worked_in_is_told(tmp_path: Path) -> None:
    def meet(error: OSError) -> None:
        with files.refusing_broken(tmp_path):
            raise error

    for code, name in ((errno.ENOSPC, None), (errno.EROFS, "elsewhere"), (errno.ENOENT, str(tmp_path / "a"))):
        with pytest.raises(TaskDistillError, match=rf'"{re.escape(str(tmp_path))}.*" cannot be written: .+'):
            meet(OSError(code, os.strerror(code), name))
    for other in (FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere"), ConnectionError("gone")):
        with pytest.raises(type(other)):  # an environment's
            meet(other)


KILLED = """
import os, sys
from pathlib import Path
from gym_taskdistill import files
with files.replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.yaml"], check=False)
    (left,) = tmp_path.iterdir()
    ours = files._temporary(tmp_path / "b.yaml")
    foreign, old = tmp_path / ".c.1-0badc0de-01234567.tmp.yaml", tmp_path / ".d.1-01234567.tmp"
    others = [tmp_path / ".gitignore", tmp_path / "x.tmp", tmp_path / ".tmp"]
    for file in (ours, foreign, old, *others):
        file.touch()
    a_week_ago = time.time() - 7 * 24 * 3600
    for file in (old, others[1]):
        os.utime(file, (a_week_ago, a_week_ago))
    files.sweep(tmp_path)
    assert not left.exists() and not old.exists()
    assert all(file.exists() for file in (ours, foreign, *others))
    files.sweep(tmp_path / "none")


# --- locks --------------------------------------------------------------------------------------

HOLDS = """
import sys, time
from pathlib import Path
from gym_taskdistill import files
with files.lock(Path(sys.argv[1]), "taken"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_lock_keeps_other_processes_out_until_they_die(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    other = subprocess.Popen([sys.executable, "-c", HOLDS, path], stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    with (
        pytest.raises(TaskDistillError, match="^Another process trains here.$"),
        files.lock(path, "Another process trains here."),
    ):
        pass
    other.kill()
    with files.lock(path, "still taken", wait=True):
        pass
    other.wait()
    other.stdout.close()


def test_a_lock_is_free_again(tmp_path: Path) -> None:
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), files.lock(tmp_path / ".lock", "taken"):
            with pytest.raises(TaskDistillError, match="taken"), files.lock(tmp_path / ".lock", "taken"):
                pass
            raise ZeroDivisionError
    (tmp_path / "file").touch()
    with (
        pytest.raises(TaskDistillError, match="cannot be locked"),
        files.lock(tmp_path / "file/.lock", "taken"),
    ):
        pass
