"""How torch uses this machine: its threads, and the memory that tensors give back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

#: Just below 32 MiB, the largest block from which glibc still learns.
_LARGEST_LEARNED = 2**25 - 2**16


def keep_freed_memory() -> None:
    """Let glibc keep up to 64 MiB of freed memory for the next tensors instead of giving it back at once.

    A minibatch's tensors of a megabyte or so lie beyond what it keeps by default; every update would fetch
    their pages from the kernel anew. glibc raises its bounds to the largest block that
    was ever freed, so one that is never written to is enough. Elsewhere this does nothing.
    """
    torch.empty(_LARGEST_LEARNED, dtype=torch.uint8)


def use_threads(n_threads: int) -> None:
    """Set the number of CPU threads torch computes with.

    Learners are small: one thread is the fastest, and leaves the other cores to other runs.
    """
    torch.set_num_threads(n_threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))


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
