"""Activations in place, by the fastest kernel that torch has for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: From this many numbers on a CPU, the sigmoid's kernel beats tanh's own, four times over for large tensors.
FEWEST_FOR_SIGMOID = 8192


def activate_(out: Tensor, activation: str | None) -> Tensor:
    """Apply an activation to what a layer has just computed, in place; autograd may go on through it.

    tanh of many float32 numbers on a CPU is computed as 2σ(2x) - 1: there torch's sigmoid takes a quarter of
    the time of its tanh, which is most of what a forward pass of a 64-64 network costs. The result is within
    2e-7 of the true value (torch's: 3e-8) and 0 at 0.

    Args:
        out: Fresh outputs, which nothing else needs any more; no leaf of a graph.
        activation: ``"tanh"``, ``"relu"`` or ``None`` for none.

    >>> activate_(torch.zeros(10_000), "tanh").abs().max()
    tensor(0.)
    """
    if activation == "relu":
        return out.relu_()
    if activation is None:
        return out
    if out.numel() < FEWEST_FOR_SIGMOID or out.dtype != torch.float32 or out.device.type != "cpu":
        return out.tanh_()
    if torch.is_grad_enabled() and out.requires_grad:
        result: Tensor = _SigmoidTanh.apply(out)  # type: ignore[no-untyped-call]
        return result
    return _sigmoid_tanh_(out)


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
