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
    gaussian = _normal((n, max(rows, cols), min(rows, cols)), generator)
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
    bound = gain * math.sqrt(6.0 / sum(_fans(shape)))
    return _uniform(shape, bound, generator)


def xavier_normal(shape: tuple[int, ...], gain: float, generator: torch.Generator) -> Tensor:
    """Draw weights by Glorot's normal law; see `xavier_uniform`."""
    return gain * math.sqrt(2.0 / sum(_fans(shape))) * _normal(shape, generator)


def kaiming_uniform(shape: tuple[int, ...], gain: float, generator: torch.Generator) -> Tensor:
    """Draw weights by He's uniform law, which for ReLU has the gain √2; see `xavier_uniform`."""
    return _uniform(shape, gain * math.sqrt(3.0 / _fans(shape)[0]), generator)


def kaiming_normal(shape: tuple[int, ...], gain: float, generator: torch.Generator) -> Tensor:
    """Draw weights by He's normal law, which for ReLU has the gain √2; see `xavier_uniform`."""
    return gain / math.sqrt(_fans(shape)[0]) * _normal(shape, generator)


def torch_default(shape: tuple[int, ...], gain: float, generator: torch.Generator) -> Tensor:
    """Draw weights as `torch.nn.Linear` and `torch.nn.Conv2d` do by default: U(-1, 1) / √fan_in.

    See `xavier_uniform`; a gain of 1 is torch's. Its biases follow the same law; see `draw_bias`.
    """
    return _uniform(shape, gain / math.sqrt(_fans(shape)[0]), generator)


def draw_bias(
    init: str, n: int, weight_shape: tuple[int, ...], gain: float, generator: torch.Generator
) -> Tensor:
    """Draw the biases that belong to a law's weights: 0, but for the law ``"torch"``.

    Args:
        init: A name of `INIT_LAWS`.
        n: How many layers.
        weight_shape: Shape ``(out, *in)`` of one layer's weight.
        gain: As for the weights.
        generator: Source of randomness.

    Returns:
        Biases, ``(n, out)``.
    """
    shape = (n, weight_shape[0])
    if init != "torch":
        return torch.zeros(shape, dtype=torch.float32, device=generator.device)
    return _uniform(shape, gain / math.sqrt(math.prod(weight_shape[1:])), generator)


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many numbers a unit of ``(n, out, *in)`` reads, and how many units read its input."""
    receptive = math.prod(shape[3:])
    return shape[2] * receptive, shape[1] * receptive


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
    return (2.0 * uniform - 1.0) * bound


#: The laws a recipe may name.
INIT_LAWS: dict[str, InitLaw] = {
    "orthogonal": orthogonal,
    "xavier_uniform": xavier_uniform,
    "xavier_normal": xavier_normal,
    "kaiming_uniform": kaiming_uniform,
    "kaiming_normal": kaiming_normal,
    "torch": torch_default,
}

#: Gains of hidden layers and of the last one where none are given: the paper's, and torch's own for its law.
PAPER_GAINS, TORCH_GAINS = (math.sqrt(2), 0.01), (1.0, 1.0)


def gains(init: str, gain: float | None, last_gain: float | None) -> tuple[float, float]:
    """Return the gains of the hidden layers and of the last one, by default the law's own.

    >>> gains("torch", None, 0.5)
    (1.0, 0.5)
    """
    own = TORCH_GAINS if init == "torch" else PAPER_GAINS
    return own[0] if gain is None else gain, own[1] if last_gain is None else last_gain
