"""Activations by the fastest kernel that torch has for them, and their first two derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

#: Activations a layer may end with, each with its module for export. All are 0 at 0, which padding relies on.
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
}

#: Those that do not tell their derivatives from their value: more than one input gives the same output.
SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.functional.gelu,
    "silu": nn.functional.silu,
    "mish": nn.functional.mish,
}

#: From this many numbers on a CPU, the sigmoid's kernel beats tanh's own, four times over for large tensors.
FEWEST_FOR_SIGMOID = 8192


def activate_(out: Tensor, activation: str | None) -> Tensor:
    """Apply an activation to what a layer has just computed, in place; autograd may go on through it.

    tanh of many float32 numbers on a CPU is computed as 2σ(2x) - 1: there torch's sigmoid takes a quarter of
    the time of its tanh, which is most of what a forward pass of a 64-64 network costs. The result is within
    2e-7 of the true value (torch's: 3e-8) and 0 at 0.

    Args:
        out: Fresh outputs, which nothing else needs any more; no leaf of a graph. Activations of `SMOOTH`
            leave them as they are and return others.
        activation: A name of `ACTIVATIONS`, or ``None`` for none.

    >>> activate_(torch.zeros(10_000), "tanh").abs().max()
    tensor(0.)
    """
    if activation == "relu":
        return out.relu_()
    if activation is None:
        return out
    if activation in SMOOTH:
        return SMOOTH[activation](out)
    if activation == "elu":
        return nn.functional.elu_(out)
    if activation == "leaky_relu":
        return nn.functional.leaky_relu_(out)
    if out.numel() < FEWEST_FOR_SIGMOID or out.dtype != torch.float32 or out.device.type != "cpu":
        return out.tanh_()
    if torch.is_grad_enabled() and out.requires_grad:
        result: Tensor = _SigmoidTanh.apply(out)  # type: ignore[no-untyped-call]
        return result
    return _sigmoid_tanh_(out)


def slope(activation: str | None, pre: Tensor | None, out: Tensor) -> Tensor | None:
    """Return an activation's derivative σ', ``None`` where it is 1.

    Args:
        activation: A name of `ACTIVATIONS`, or ``None`` for none.
        pre: Its inputs; only those of `SMOOTH` need them.
        out: Its outputs.
    """
    if activation == "tanh":
        return torch.addcmul(torch.ones((), dtype=out.dtype, device=out.device), out, out, value=-1)
    if activation == "relu":
        return (out > 0).to(out.dtype)
    if activation == "leaky_relu":
        return torch.full_like(out, 0.01).masked_fill_(out > 0, 1)
    if activation == "elu":
        return (out + 1).clamp_(max=1)
    return None if pre is None else _derivatives(activation, pre)[0]


def curvature(activation: str, pre: Tensor) -> Tensor:
    """Return the second derivative σ'' of an activation of `SMOOTH` at its inputs."""
    return _derivatives(activation, pre)[1]


def _derivatives(activation: str | None, x: Tensor) -> tuple[Tensor, Tensor]:
    if activation == "gelu":  # x Φ(x), with the normal law's Φ and φ
        density = torch.exp(-0.5 * x.square()) / math.sqrt(2 * math.pi)
        return torch.special.ndtr(x) + x * density, density * (2 - x.square())
    s = torch.sigmoid(x)
    if activation == "silu":  # x σ(x)
        return s * (1 + x * (1 - s)), s * (1 - s) * (2 + x * (1 - 2 * s))
    # mish: x t(x), with t the tanh of the softplus, whose derivative is σ
    t = torch.tanh(nn.functional.softplus(x))
    dt = (1 - t.square()) * s
    return t + x * dt, 2 * dt + x * (dt * (1 - s) - 2 * t * dt * s)


def _sigmoid_tanh_(x: Tensor) -> Tensor:
    return x.add_(x).sigmoid_().mul_(2).sub_(1)


class _SigmoidTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(_sigmoid_tanh_(x))
        return x

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(cotangents[0], out)
