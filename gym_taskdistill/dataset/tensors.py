"""Tensors as a dataset holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gym_taskdistill.errors import DatasetError


def frozen(value: Any, where: str, device: torch.device | None) -> Tensor:
    """Return a detached, contiguous float32 copy that nobody else can change.

    Args:
        value: The tensor.
        where: What it is, for messages.
        device: Where the copy lies; ``None`` leaves it where it is.

    Raises:
        DatasetError: It is no floating-point tensor, or not finite.
    """
    if not isinstance(value, Tensor):
        raise DatasetError(f"{where} must be a tensor, not a {type(value).__name__}.")
    if not value.is_floating_point():
        raise DatasetError(f"{where} must be a floating-point tensor, not {value.dtype}.")
    tensor = value.detach().to(device, torch.float32)
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    if not bool(torch.isfinite(tensor).all()):
        raise DatasetError(f"{where} holds NaN or infinite values.")
    return tensor
