"""What work finds around it in other processes: the same as in the process that asks for it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from joblib import Parallel, delayed

from gym_taskdistill import trust

Result = TypeVar("Result")


@dataclass(frozen=True)
class Surroundings:
    """What code finds around it in a process.

    joblib's processes, and those of `ProcessVecEnv`, outlive what they were started for, and so keep what was
    around at that time until they are told what is around now.

    Attributes:
        folder: The folder that relative paths start from.
        import_path: Where modules are looked for.
        variables: The environment variables.
        trusted: The code that may be run; see `trust`.
    """

    folder: str
    import_path: tuple[str, ...]
    variables: Mapping[str, str]
    trusted: frozenset[str]

    @classmethod
    def here(cls) -> Surroundings:
        """Return those of this process, now."""
        return cls(os.getcwd(), tuple(sys.path), dict(os.environ), trust.granted())

    def enter(self) -> None:
        """Make them those of this process."""
        os.chdir(self.folder)
        sys.path[:] = self.import_path
        importlib.invalidate_caches()
        for name in os.environ.keys() - self.variables.keys():
            del os.environ[name]
        os.environ.update(self.variables)
        trust.only(self.trusted)


def each(
    function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]], n_jobs: int
) -> Iterator[Result]:
    """Call a function with each of several arguments, and yield what it returns as soon as it does.

    joblib runs the calls; choose another of its backends by ``joblib.parallel_config``.

    Args:
        function: A function of a module.
        arguments: Arguments of each call, of kinds that any process knows.
        n_jobs: Calls at once, one process each; 1 for this process.
    """
    if n_jobs == 1:
        yield from (function(*args) for args in arguments)
        return
    here = Surroundings.here()
    calls = (delayed(_call)(here, function, args) for args in arguments)
    yield from Parallel(n_jobs=n_jobs, return_as="generator_unordered")(calls)


def _call(surroundings: Surroundings, function: Callable[..., Result], args: tuple[Any, ...]) -> Result:
    surroundings.enter()
    return function(*args)
