"""Pixels as networks see them: scaled to [0, 1], or standardised by frozen statistics."""

from __future__ import annotations

import torch
from torch import Tensor

#: Bounds of standardised pixels: on their magnitude, and from below on the deviation, in units of 255.
CLIP, MIN_STD = 5.0, 0.02
#: Numbers that a CPU's cache holds with all that one pass makes of them.
_CHUNK = 2**17


def measure(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every pixel of images ``(n, C, H, W)``, in units of 255."""
    scaled = images / 255.0
    return scaled.mean(0), scaled.std(0).clamp_min(MIN_STD)


def standardise(images: Tensor, mean: Tensor | None, std: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Scale bytes to [0, 1], and standardise and clip them if statistics are given.

    Args:
        images: Bytes, ``(..., C, H, W)``.
        mean: Of every pixel, ``(C, H, W)``, in units of 255; ``None`` to scale alone.
        std: As `mean`.
        dtype: Of the result; it is computed in float32.

    Returns:
        The pixels, shaped as ``images``.
    """
    if mean is None or std is None:
        return (images / 255.0).to(dtype)
    factor, shift = 1 / (255.0 * std), -mean / std
    flat = images.reshape(-1, *mean.shape)
    out = torch.empty(flat.shape, dtype=dtype, device=images.device)
    # A few images at a time stay in the cache from the first operation to the last.
    n = max(1, _CHUNK // mean.numel()) if images.device.type == "cpu" else max(1, len(flat))
    for source, target in zip(flat.split(n), out.split(n), strict=True):
        target.copy_(torch.addcmul(shift, source.float(), factor).clamp_(-CLIP, CLIP))
    return out.view(images.shape)
