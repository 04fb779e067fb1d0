"""Writing files so that they are never half there."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path

from gym_taskdistill.errors import TaskDistillError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write, which then takes the place of ``path``.

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
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise TaskDistillError(f'"{path}" cannot be written: {reason}.') from None
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
            with open(temporary[path], "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            os.replace(temporary[path], path)
    finally:
        for leftover in temporary.values():
            leftover.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp{path.suffix}")
