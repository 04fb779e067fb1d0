"""Several processes that distil one dataset: each collects its own rollouts, gradients are averaged.

``torchrun`` starts the processes and says which is which; without it there is one, and nothing here does
anything. All ranks hold the same parameters, from the same start and by the same updates.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def start(device: str = "auto") -> None:
    """Join the processes that ``torchrun`` started, if it did: by NCCL on GPUs, else by Gloo.

    Args:
        device: Torch device of the run; each rank takes a GPU of its own.
    """
    if "RANK" not in os.environ or dist.is_initialized():
        return
    on_gpu = torch.cuda.is_available() and not device.startswith("cpu")
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    # Else threads that still talk to a rank that has ended may abort the interpreter on its way out.
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def from_first(value: T) -> T:
    """Return the value that rank 0 has, on every rank; plain data."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def average(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over all ranks."""
    if world_size() == 1:
        return tensor
    result = tensor.detach().clone()
    dist.all_reduce(result)
    return result / world_size()


def average_gradients(params: Iterable[Tensor]) -> None:
    """Replace the parameters' gradients by their means over all ranks; one transfer for all of them."""
    if world_size() == 1:
        return
    grads = [p.grad for p in params if p.grad is not None]
    flat = average(torch.cat([grad.flatten() for grad in grads]))
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def merge_moments(moments: Any) -> None:
    """Replace SB3's running mean and variance by those of all ranks' samples together.

    Exact as long as all ranks have seen equally many, which they have.

    Args:
        moments: SB3's `RunningMeanStd`.
    """
    if world_size() == 1:
        return
    mean, var = torch.as_tensor(moments.mean), torch.as_tensor(moments.var)
    on_gpu = dist.get_backend() == "nccl"
    pair = torch.stack([mean, var + mean.square()])
    mean, square = average(pair.cuda() if on_gpu else pair).cpu()
    moments.mean, moments.var = mean.numpy(), (square - mean.square()).numpy()
