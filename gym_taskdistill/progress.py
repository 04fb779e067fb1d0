"""One protocol for progress, on a terminal and in a log.

What takes long has an argument ``progress``: a function that is called with the number of units done since
the last call, episodes or updates. The bar of `progress` has one, ``bar.update``.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

Progress = Callable[[int], object]
"""Called with the number of units done since the last call."""

EVERY_S = 30.0
"""Seconds between two lines where standard error is no terminal."""


class _Lines(io.TextIOBase):
    """A bar's file that turns its drawings into lines, few of them."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.next_s = 0.0

    def write(self, text: str) -> int:
        line = text.strip()
        if line and time.monotonic() >= self.next_s:
            self.next_s = time.monotonic() + EVERY_S
            self._file.write(f"{line}\n")
            self._file.flush()
        return len(text)


class _Bar(tqdm):
    """A bar that may draw into lines."""

    lines: _Lines | None = None

    def close(self) -> None:
        """Draw it for the last time, which is always told."""
        if self.lines is not None:
            self.lines.next_s = 0.0
        super().close()


def progress(total: int, unit: str, shown: bool = True, **options: Any) -> _Bar:
    """Return a progress bar with the time left: on a terminal as usual, elsewhere a line now and then.

    Args:
        total: Units in all.
        unit: What is counted, in the singular.
        shown: Whether to show anything.
        **options: Further options of tqdm's.

    >>> with progress(2, "episode", shown=False) as bar:
    ...     bar.update(2)
    """
    if not shown or sys.stderr.isatty():
        return _Bar(total=total, unit=unit, dynamic_ncols=True, disable=not shown, **options)
    lines = _Lines(sys.stderr)
    bar = _Bar(total=total, unit=unit, file=lines, ncols=100, mininterval=1.0, ascii=True, **options)
    bar.lines = lines
    return bar
