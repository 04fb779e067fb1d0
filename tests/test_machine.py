"""How the machine is used: cores."""

from __future__ import annotations

from collections.abc import Iterator

import joblib
import pytest
import torch

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.machine import jobs, use_threads


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    use_threads(1)


def test_what_is_asked_for_counts_before_what_is_set() -> None:
    assert jobs() == 1
    use_threads(3)
    assert (jobs(), jobs(2), jobs(-1)) == (3, 2, joblib.cpu_count())
    assert torch.get_num_threads() == 1  # small learners are fastest on one


@pytest.mark.parametrize("n_jobs", [0, -2])
def test_fewer_than_one_core_is_refused(n_jobs: int) -> None:
    with pytest.raises(TaskDistillError, match=f"At least 1 core must simulate, not {n_jobs}"):
        use_threads(n_jobs)
    with pytest.raises(TaskDistillError, match="torch needs at least 1 thread, not 0"):
        use_threads(1, 0)
    assert jobs() == 1
