"""Tensors as a dataset holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gym_taskdistill.errors import DatasetError

#: The largest magnitude of rows, labels, factors and weights, and of an observation's mean; the square of the
#: latter bounds variances. What learners compute with larger ones is not finite in float32.
MAX_NUMBER, MAX_OBS = 1e12, 1e18


def frozen(value: Any, where: str, device: torch.device | None, maximum: float = MAX_NUMBER) -> Tensor:
    """Return a detached, contiguous float32 copy that nobody else can change.

    Args:
        value: The tensor.
        where: What it is, for messages.
        device: Where the copy lies; ``None`` leaves it where it is.
        maximum: The largest magnitude that it may hold.

    Raises:
        DatasetError: It is no floating-point tensor, not finite, or holds larger numbers.
    """
    if not isinstance(value, Tensor):
        raise DatasetError(f"{where} must be a tensor, not a {type(value).__name__}.")
    if not value.is_floating_point():
        raise DatasetError(f"{where} must be a floating-point tensor, not {value.dtype}.")
    tensor = value.detach().to(device, torch.float32)
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    if not bool((tensor.abs() <= maximum).all()):  # which NaN is not
        if not bool(torch.isfinite(tensor).all()):
            raise DatasetError(f"{where} holds NaN or infinite values.")
        largest = float(tensor.flatten()[tensor.abs().argmax()])
        raise DatasetError(
            f"{where} holds {largest:.6g}, but must hold numbers from {-maximum:g} to {maximum:g}."
        )
    return tensor
