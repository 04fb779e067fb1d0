"""Code that files name: cards, recipes and models run some only on the user's word.

A name is a module (``"my_package.envs"``), something in one (``"my_package.nets:residual"``), or a file that
holds pickled code (``"ppo:model.zip"``). A module that was imported already cannot be run by naming it; all
else is refused until it is allowed, in one sentence that says how.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.safe_yaml import shortened

#: Stands for every name.
EVERYTHING = "*"

#: Packages whose modules come with the library or with Gymnasium.
_OURS = ("gymnasium.wrappers.", "gym_taskdistill.")

_allowed: set[str] = set()


def allow(*names: str) -> None:
    """Trust code for the rest of this process.

    Args:
        *names: Modules, which stand for all that is in them, functions, or files, as the file that names them
            does.
    """
    _allowed.update(names)


def granted() -> frozenset[str]:
    """Return what is allowed, to hand it on to another process."""
    return frozenset(_allowed)


def only(names: Iterable[str]) -> None:
    """Trust these names, and no others, for the rest of this process."""
    _allowed.clear()
    _allowed.update(names)


@contextmanager
def scope(names: Iterable[str] = ()) -> Iterator[None]:
    """Trust code within a block; what is allowed there is forgotten after it.

    Args:
        names: As for `allow`; ``[EVERYTHING]`` for whatever files name.
    """
    before = granted()
    _allowed.update(names)
    try:
        yield
    finally:
        only(before)


def is_allowed(name: str) -> bool:
    """Whether a name, or the module that it lies in, was allowed."""
    return not _allowed.isdisjoint((EVERYTHING, name, name.partition(":")[0]))


def check(name: str, what: str) -> None:
    """Refuse to run code that nobody allowed.

    Args:
        name: A module, something in one, or a file.
        what: What names it, for the message.

    Raises:
        TaskDistillError: It is not allowed, and no module that is imported already.
    """
    imported = ":" not in name and (name in sys.modules or f"{name}.".startswith(_OURS))
    if not imported and not is_allowed(name):
        name = shortened(name)
        raise TaskDistillError(
            f'{shortened(what, 160)} names code, "{name}", which is not run unasked: if you trust it, give '
            f'--trust on the command line, or in Python trust=True or gym_taskdistill.trust.allow("{name}").'
        )


def load(name: str, what: str) -> Any:
    """Import what a file names, if it may be run.

    Args:
        name: A module, or something in one; dots after the colon lead further in.
        what: What names it, for messages.

    Returns:
        The module, or what is in it.

    Raises:
        TaskDistillError: It may not be run, cannot be imported, or does not exist.
    """
    check(name, what)
    module, _, attributes = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # the module's own code fails as it likes
        raise TaskDistillError(
            f'{shortened(what, 160)} names "{shortened(name)}", which cannot be imported: '
            f"{type(error).__name__}: {error}."
        ) from error
    for attribute in attributes.split(".") if attributes else ():
        if not hasattr(found, attribute):
            raise TaskDistillError(
                f'{shortened(what, 160)} names "{shortened(name)}", which does not exist: {module} has no '
                f"{shortened(attributes)}."
            )
        found = getattr(found, attribute)
    return found
