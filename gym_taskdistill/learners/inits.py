"""Initialisation laws, for many weight matrices at once and from an explicit generator."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: A law draws a batch of weights ``(n, out, *in)``: ``law(shape, gain, generator)``.
InitLaw = Callable[[tuple[int, ...], float, torch.Generator], Tensor]


def orthogonal(shape: tuple[int, ...], gain: float, generator: torch.Generator) -> Tensor:
    """Draw ``shape[0]`` (semi-)orthogonal weights, as `torch.nn.init.orthogonal_` draws one.

    Args:
        shape: ``(n, out, *in)``; trailing dimensions are flattened into the columns.
        gain: Factor on the orthogonal matrix (the paper's σ).
        generator: Source of randomness.

    Returns:
        Weights of shape ``shape``; each has orthogonal rows or columns, whichever are fewer.
    """
    n, rows, cols = shape[0], shape[1], math.prod(shape[2:])
    gaussian = torch.randn(
        (n, max(rows, cols), min(rows, cols)), generator=generator, device=generator.device
    )
    q = _orthonormal_columns(gaussian)
    weight = q if rows >= cols else q.mT
    return (gain * weight).reshape(shape).contiguous()


def _orthonormal_columns(gaussian: Tensor) -> Tensor:
    """Orthonormalise the columns: the uniform Q of a QR decomposition with R's diagonal above 0."""
    rows, cols = gaussian.shape[-2:]
    if rows >= 4 * cols >= 1024:
        # R is also the Cholesky factor of the Gram matrix. That route squares the condition number, which is
        # near 1 for tall matrices, and is several times faster for large ones.
        r = torch.linalg.cholesky(gaussian.mT @ gaussian, upper=True)
        return torch.linalg.solve_triangular(r, gaussian, upper=True, left=False)
    q, r = torch.linalg.qr(gaussian)
    # QR alone fixes no signs.
    return q * torch.sign(torch.diagonal(r, dim1=-2, dim2=-1)).unsqueeze(-2)


def xavier_uniform(shape: tuple[int, ...], gain: float, generator: torch.Generator) -> Tensor:
    """Draw ``shape[0]`` weights by Glorot's uniform law, as `torch.nn.init.xavier_uniform_`.

    Args:
        shape: ``(n, out, *in)``.
        gain: Factor on the standard deviation (the paper's σ).
        generator: Source of randomness.

    Returns:
        Weights of shape ``shape``.
    """
    receptive = math.prod(shape[3:])
    fan_out, fan_in = shape[1] * receptive, shape[2] * receptive
    bound = gain * math.sqrt(6.0 / (fan_in + fan_out))
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return (2.0 * uniform - 1.0) * bound


#: The laws a recipe may name.
INIT_LAWS: dict[str, InitLaw] = {"orthogonal": orthogonal, "xavier_uniform": xavier_uniform}
