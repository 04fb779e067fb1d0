"""How the C library treats memory that tensors give back."""

from __future__ import annotations

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
