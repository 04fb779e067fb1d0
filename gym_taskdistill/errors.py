"""The library's own exceptions: one sentence each, with what is wrong and what to do."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from typing import Any

#: Characters of a message; of a longer one, the beginning and the end are kept.
MAX_MESSAGE = 600


class TaskDistillError(Exception):
    r"""Base class of every error that gym-taskdistill raises on purpose.

    Its message is safe to print, whatever data it quotes: of a few hundred characters, none of which a
    terminal would obey.

    >>> print(TaskDistillError("\x1b[31mred"))
    \x1b[31mred
    """

    def __init__(self, message: str = "") -> None:
        if len(message) > MAX_MESSAGE:
            half = MAX_MESSAGE // 2 - 2
            message = f"{message[:half]} … {message[-half:]}"
        super().__init__("".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in message))


class DatasetError(TaskDistillError, ValueError):
    """Raised when a dataset file or object cannot be used."""


class ModelError(TaskDistillError, ValueError):
    """Raised when the file of a model is damaged or of another kind, where SB3 raises a `ValueError` too."""


class ZooError(TaskDistillError, LookupError):
    """Raised when the zoo has no entry, or no single entry, for what was asked."""


def import_extra(module: str, extra: str, what: str) -> Any:
    """Import a module that only an extra of the library installs.

    Args:
        module: Its name.
        extra: The extra, as ``pip install "gym-taskdistill[extra]"`` calls it.
        what: What needs it, in the plural, to begin the message.

    Returns:
        The module.

    Raises:
        TaskDistillError: It is not installed.

    >>> import_extra("math", "plot", "Figures").__name__
    'math'
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise TaskDistillError(
            f'{what} need {package}: run `pip install "gym-taskdistill[{extra}]"`.'
        ) from None


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
