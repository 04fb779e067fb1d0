"""How this machine is used: its cores, its number formats, and the memory that tensors give back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch

from gym_taskdistill.errors import TaskDistillError

#: Just below 32 MiB, the largest block from which glibc still learns.
_LARGEST_LEARNED = 2**25 - 2**16

#: What torch calls a processor's units for bfloat16.
_BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "amx_tile")

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


def in_bfloat16(mixed_precision: bool | Literal["auto"], device: torch.device) -> bool:
    """Tell whether a setting means bfloat16 on a device; ``"auto"`` asks `has_bfloat16`.

    Raises:
        TaskDistillError: It is another setting.
    """
    if mixed_precision == "auto":
        return has_bfloat16(device)
    if not isinstance(mixed_precision, bool):
        raise TaskDistillError(f'mixed_precision must be True, False or "auto", but is {mixed_precision!r}.')
    return mixed_precision


def has_bfloat16(device: torch.device) -> bool:
    """Tell whether a device has units for bfloat16; without them it is slower than float32.

    These are GPUs of compute capability 8.0 and later, and processors with AVX512_BF16 or AMX.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(unit, False) for unit in _BFLOAT16_UNITS)
    # Versions of torch before that one tell it under names of their own.
    names = (f"_is_{unit}_supported" for unit in _BFLOAT16_UNITS)
    return any(getattr(torch.cpu, name)() for name in names if hasattr(torch.cpu, name))


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
