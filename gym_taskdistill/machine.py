"""How this machine is used: its cores, and the memory that tensors give back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from gym_taskdistill.errors import TaskDistillError

#: Just below 32 MiB, the largest block from which glibc still learns.
_LARGEST_LEARNED = 2**25 - 2**16

_n_jobs = 1


def keep_freed_memory() -> None:
    """Let glibc keep up to 64 MiB of freed memory for the next tensors instead of giving it back at once.

    A minibatch's tensors of a megabyte or so lie beyond what it keeps by default; every update would fetch
    their pages from the kernel anew. glibc raises its bounds to the largest block that
    was ever freed, so one that is never written to is enough. Elsewhere this does nothing.
    """
    torch.empty(_LARGEST_LEARNED, dtype=torch.uint8)


def use_threads(n_jobs: int, torch_threads: int = 1) -> None:
    """Set how many cores simulate, and with how many threads torch computes.

    The simulation's results are the same for any number. Torch's may differ in the last bits; for small
    learners one thread is the fastest, and leaves the other cores to the simulation.

    Args:
        n_jobs: Cores that simulate where nothing else is said, -1 for all; see `Task.make_vec_env`.
        torch_threads: CPU threads of torch.

    Raises:
        TaskDistillError: A number is below 1.
    """
    global _n_jobs
    if torch_threads < 1:
        raise TaskDistillError(f"torch needs at least 1 thread, not {torch_threads}.")
    _n_jobs = jobs(n_jobs)
    torch.set_num_threads(torch_threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(torch_threads))


def jobs(n_jobs: int | None = None) -> int:
    """Return how many cores simulate.

    Args:
        n_jobs: How many are asked for, -1 for all; ``None`` for what `use_threads` has set, which is one by
            default.

    Raises:
        TaskDistillError: It is 0, or another number below 1.

    >>> jobs(), jobs(2)
    (1, 2)
    """
    if n_jobs is None:
        return _n_jobs
    if n_jobs == -1:
        from joblib import cpu_count

        return int(cpu_count())
    if n_jobs < 1:
        raise TaskDistillError(f"At least 1 core must simulate, not {n_jobs}; use -1 for all cores.")
    return n_jobs


@contextlib.contextmanager
def single_precision() -> Iterator[None]:
    """Make new tensors in float32, as datasets are, whatever `torch.set_default_dtype` says.

    >>> torch.set_default_dtype(torch.float64)
    >>> with single_precision():
    ...     torch.zeros(1).dtype
    torch.float32
    >>> torch.zeros(1).dtype
    torch.float64
    >>> torch.set_default_dtype(torch.float32)
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(default)
