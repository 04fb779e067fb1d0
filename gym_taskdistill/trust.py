"""Code that data names: recipes, cards and experts' files run some only on the user's word.

A module that is imported already cannot be run by naming it. All others, and files that hold pickled code,
are refused until they are allowed.
"""

from __future__ import annotations

import sys

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.safe_yaml import shortened

_ALLOWED: set[str] = set()


def allow(name: str) -> None:
    """Trust a module, or a file that holds code, for the rest of this process.

    Args:
        name: The module, such as ``"my_package.envs"``, or the file as a recipe names it.
    """
    _ALLOWED.add(name)


def allowed() -> tuple[str, ...]:
    """Return what is trusted, so that a process that is begun can be told."""
    return tuple(sorted(_ALLOWED))


def check(name: str, what: str) -> None:
    """Refuse to run code that nobody allowed.

    Args:
        name: A module, or a file that holds code.
        what: What names it, for the message.

    Raises:
        TaskDistillError: It is not imported already, and not allowed.
    """
    if name not in sys.modules and name not in _ALLOWED:
        raise TaskDistillError(
            f'{shortened(what)} runs the code of "{shortened(name)}". If you trust it, say so with --trust, '
            "or in Python by importing the module, or by gym_taskdistill.trust.allow(name)."
        )
