"""Seeds of training, selection, test and search never meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gym_taskdistill import seeds
from gym_taskdistill.errors import TaskDistillError


def test_the_ranges_are_disjoint() -> None:
    keys = [(s, i) for s in range(300) for i in range(5)] + [(2**32 - 1,), (0,), (0, 0, 0)]
    training = [seeds.training(*key) for key in keys]
    selection = [seeds.selection(s) for s in (*range(1000), 2**32 - 1)]
    assert len(set(training)) == len(training) and len(set(selection)) == len(selection)
    assert min(training) >= 0 and max(training) + 100_000 < 2**30
    assert min(selection) >= 2**30 and max(selection) + 100_000 < seeds.TEST
    searching = [seeds.search(*key) for key in keys]
    assert min(searching) > seeds.TEST + seeds.ROOM and max(searching) + 100_000 < 2**31


def test_seeds_are_the_same_on_every_machine() -> None:
    assert (seeds.training(0), seeds.training(3, 1), seeds.selection(0)) == GOLDEN
    assert seeds.training(np.int64(3), 1) == seeds.training(3, 1)
    assert seeds.training(1) != seeds.training(1, 0)


GOLDEN = (482841087, 651311878, 1341624831)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, np.int64(3), np.uint8(1)])
def test_checked(seed: Any) -> None:
    assert seeds.checked(seed) == seed and type(seeds.checked(seed)) is int


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, True, np.bool_(True), "1", None, 10**400])
def test_checked_refuses(seed: Any) -> None:
    for function in (seeds.checked, seeds.training, seeds.selection, seeds.search):
        with pytest.raises(
            TaskDistillError, match=r"A seed must be an integer from 0 to 2\*\*32 - 1, but is"
        ):
            function(seed)
