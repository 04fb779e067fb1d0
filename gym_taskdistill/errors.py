"""The library's own exceptions: one sentence each, with what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TaskDistillError(Exception):
    """Base class of every error that gym-taskdistill raises on purpose."""


class DatasetError(TaskDistillError, ValueError):
    """Raised when a dataset file or object cannot be used."""


class ZooError(TaskDistillError, LookupError):
    """Raised when the zoo has no entry, or no single entry, for what was asked."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Suggest the nearest known name, as text to append to an error message.

    Args:
        name: What the caller wrote.
        choices: The names that exist.

    Returns:
        A sentence with a leading space, or an empty string when nothing is near.

    >>> did_you_mean("k_mim", ["k_min", "k512"])
    ' Did you mean "k_min"?'
    >>> did_you_mean("pong", ["k_min"])
    ''
    """
    nearest = difflib.get_close_matches(name, list(choices), n=1)
    return f' Did you mean "{nearest[0]}"?' if nearest else ""
