"""Seeds of training, of selection, of the test and of searches: four ranges that never meet.

A dataset is trained on the first, chosen by the second, and tested once on the third, so that no score is of
something that has been seen. What compares architectures has seeds of its own. Above every seed there is
`ROOM` for what counts up from it, such as envs.
"""

from __future__ import annotations

import numpy as np

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.schema import shown

ROOM = 2**20
"""How far may be counted up from a seed without leaving its range."""

TEST = 2**30 + 2**29 + 5
"""The seed of every test of this release.

It changes when a recipe has been changed after its test scores were seen.
"""


def checked(seed: object) -> int:
    """Return a seed as a Python integer.

    Args:
        seed: An integer from 0 to 2**32 - 1, NumPy's included.

    Raises:
        TaskDistillError: It is something else.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise TaskDistillError(f"A seed must be an integer from 0 to 2**32 - 1, but is {shown(seed)}.")
    return int(seed)


def training(*key: int) -> int:
    """Return a seed of training: the same for the same key, and another for another.

    Args:
        key: What is seeded, as integers of at least 0, such as the run's seed and a stage's number.

    Returns:
        A seed in [0, 2**30 - ROOM).
    """
    return _hashed(key, 2**30)


def selection(seed: int) -> int:
    """Return the seed of the tests that choose a run's best dataset.

    Args:
        seed: The run's seed, at least 0.

    Returns:
        A seed in [2**30, 2**30 + 2**29 - ROOM).
    """
    return 2**30 + _hashed((seed,), 2**29)


def search(*key: int) -> int:
    """Return a seed of a search among architectures.

    Args:
        key: As for `training`.

    Returns:
        A seed in [2**31 - 2**28, 2**31 - ROOM), the largest that all environments take.
    """
    return 2**31 - 2**28 + _hashed(key, 2**28)


def _hashed(key: tuple[int, ...], size: int) -> int:
    # The length tells (1,) from (1, 0), which NumPy would hash alike.
    parts = [len(key), *(checked(part) for part in key)]
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] % (size - ROOM))
