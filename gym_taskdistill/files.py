"""Files that are never half there: written whole, sealed against damage, locked against other processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError

_DAY = 24 * 3600.0

#: Process numbers mean something on their own machine alone.
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"

_TEMPORARY = re.compile(rf"\..+\.(\d+)-(?:{_HOST}-)?[0-9a-f]{{8}}\.tmp(\..*)?")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write, which then takes the place of ``path``, safe on the disk.

    Args:
        path: The file. The temporary one lies beside it and has the same suffix.

    Raises:
        TaskDistillError: The folder does not exist, or the file cannot be written.
    """
    if not path.parent.is_dir():
        raise TaskDistillError(f'"{path}" cannot be written: there is no folder "{path.parent}".')
    temporary = _temporary(path)
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise TaskDistillError(f'"{path}" cannot be written: {_reason(error)}.') from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write several files to the disk under temporary names, then rename them in the order given.

    Args:
        files: Content by path.

    Raises:
        OSError: A file cannot be written; then none of the temporary files is left.
    """
    temporary = {path: _temporary(path) for path in files}
    try:
        for path, content in files.items():
            temporary[path].write_bytes(content)
            _sync(temporary[path])
        for path in files:
            os.replace(temporary[path], path)
        for folder in {path.parent for path in files}:
            _sync_folder(folder)
    finally:
        for leftover in temporary.values():
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half written: temporary files whose process is gone, or a day old.

    Args:
        folder: The folder, without those below it.
    """
    with contextlib.suppress(OSError):
        for file in list(folder.iterdir()):
            match = _TEMPORARY.fullmatch(file.name)
            with contextlib.suppress(OSError):
                if match and (
                    _is_gone(int(match[1]), file.name) or time.time() - file.stat().st_mtime > _DAY
                ):
                    file.unlink()


@contextlib.contextmanager
def lock(path: Path, message: str, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes out while something is changed; the system frees the lock of a killed process.

    Args:
        path: The lock's own file, such as ``folder / ".lock"``, which is made (its folder too)
            and stays.
        message: The sentence to raise where another process holds it.
        wait: Wait for the other process instead.

    Raises:
        TaskDistillError: Another process, or another part of this one, holds the lock; or it cannot be made.
    """
    held = filelock.FileLock(path, timeout=-1 if wait else 0)
    try:
        held.acquire()
    except filelock.Timeout:
        raise TaskDistillError(message) from None
    except (OSError, NotImplementedError) as error:
        raise TaskDistillError(f'"{path}" cannot be locked: {_reason(error)}.') from None
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def refusing_broken(folder: Path) -> Iterator[None]:
    """Say in a sentence that a folder cannot be worked in: gone, a file in the way, a full disk.

    Other errors of the system, such as those of an environment, pass.

    Raises:
        TaskDistillError: As said.
    """
    try:
        yield
    except OSError as error:
        within = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(folder)
        if not within and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        place = error.filename if within else folder
        raise TaskDistillError(f'"{place}" cannot be written: {_reason(error)}.') from error


# --- sealed files: tensors and plain data under one checksum ------------------------------------

_KEY = "gym-taskdistill"
_BEGIN = f'{{"__metadata__":{{"{_KEY}":"'.encode()
_SEAL = slice(8 + len(_BEGIN), 8 + len(_BEGIN) + 64)


def canonical(document: Mapping[str, Any]) -> str:
    """The one JSON text of a document: equal content, equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sealed(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """Return a safetensors file's bytes, with plain data in its header and a SHA-256 over all of it.

    Args:
        tensors: Tensors of any kind of number, which are kept exactly.
        meta: Plain JSON data.
    """
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = bytearray(safetensors.torch.save(copies, {_KEY: "0" * 64 + canonical(meta)}))
    # The seal takes the place of the zeros, which it was computed over.
    content[_SEAL] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def unsealed(content: bytes, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `sealed` made; a single bit that differs is refused.

    Args:
        content: The file's bytes.
        what: What messages call it, such as ``The checkpoint "a/b"``.

    Returns:
        Tensors on the CPU, and the plain data.

    Raises:
        TaskDistillError: It is another kind of file, or damaged.
    """
    if content[8 : _SEAL.start] != _BEGIN:
        raise TaskDistillError(f"{what} is damaged, or another kind of file.")
    bare = bytearray(content)
    bare[_SEAL] = b"0" * 64
    if hashlib.sha256(bare).hexdigest().encode() != content[_SEAL]:
        raise TaskDistillError(f"{what} is damaged: its checksum is wrong.")
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        meta = json.loads(header["__metadata__"][_KEY][64:])
        return safetensors.torch.load(bytes(content)), meta
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise TaskDistillError(f"{what} cannot be read ({_reason(error)}).") from None


def write_sealed(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write a sealed file; see `sealed` and `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(sealed(tensors, meta))


def read_sealed(path: Path, what: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a sealed file; see `unsealed`.

    Args:
        path: The file.
        what: What messages call it; its path if empty.

    Raises:
        TaskDistillError: The file cannot be read, is another kind of file, or is damaged.
    """
    what = what or f'The file "{path}"'
    return unsealed(read_bytes(path, what), what)


def read_bytes(path: Path, what: str) -> bytes:
    """Read a file.

    Args:
        path: The file.
        what: What messages call it, such as ``The checkpoint "a/b"``.

    Raises:
        TaskDistillError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise TaskDistillError(f"{what} cannot be read: {_reason(error)}.") from None


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}-{_HOST}-{secrets.token_hex(4)}.tmp{path.suffix}")


def _is_gone(process: int, name: str) -> bool:
    """Whether the process that made a temporary file runs no more; False where that cannot be known."""
    if f"-{_HOST}-" not in name or os.name == "nt":  # where kill(…, 0) would not ask, but end it
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


def _sync(file: Path) -> None:
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())


def _sync_folder(folder: Path) -> None:
    # Not every system opens folders; the rename itself is done by now.
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _reason(error: BaseException) -> str:
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
