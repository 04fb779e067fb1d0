"""The gradient of the learners' regression loss, as an operation that can itself be differentiated.

Autograd can differentiate its own backward pass, but pays for it with a graph of some fifteen small nodes for
each layer and step, which for networks of this size costs as much as the arithmetic. For multi-layer
perceptrons both passes are written out here: the gradient by back-propagation, and the product of a vector
with its derivative by Pearlmutter's R-operator (1994). Other architectures go through autograd.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gym_taskdistill.learners.activations import SMOOTH, activate_, curvature, slope
from gym_taskdistill.learners.layers import Linear
from gym_taskdistill.learners.learners import Learners, LearnerStack, Stack


def mse_gradients(
    learners: Learners,
    x: Tensor | Sequence[Tensor],
    y: Tensor,
    *,
    polyak: bool = False,
    hidden: Tensor | float = 1.0,
) -> tuple[Tensor, ...]:
    """Compute the gradient of every learner's loss ``mean((λ(x) - y)²)`` with respect to its parameters.

    Args:
        learners: M learners with at least one layer.
        x: Rows that all of them see, shape ``(k, *in)``; or one tensor for each stack, ``(M_stack, k, *in)``,
            where every learner has its own.
        y: Labels, shape ``(k, n_outputs)``.
        polyak: Scale each learner's gradient g by its Polyak step size for a lowest loss of 0: the loss over
            the slope along the step, ⟨g, hidden · g⟩, or ‖g‖² without that factor.
        hidden: Factor on the gradients of all layers but each learner's last.

    Returns:
        The gradients, ordered and shaped as ``learners.params``. Where gradients are enabled they can be
        differentiated once more, with respect to the parameters, ``x`` and ``y``.
    """
    result: list[Tensor] = []
    shared = isinstance(x, Tensor)
    for i, stack in enumerate(learners.stacks):
        rows = x if isinstance(x, Tensor) else x[i]
        if _is_perceptron(stack):
            losses, *grads = _perceptron(stack, rows, y, shared)
        else:
            losses, *grads = _autograd(stack, rows, y, shared)
        plain = grads
        if isinstance(hidden, Tensor) or hidden != 1:
            n_hidden = len(grads) - stack.n_head
            grads = [*(grad * hidden for grad in grads[:n_hidden]), *grads[n_hidden:]]
        if polyak:
            slopes = [(a * b).flatten(1).sum(1) for a, b in zip(plain, grads, strict=True)]
            steps = losses / (torch.stack(slopes).sum(0) + torch.finfo(losses.dtype).tiny)
            grads = [grad * steps.view(-1, *[1] * (grad.dim() - 1)) for grad in grads]
        result += grads
    return tuple(result)


def _is_perceptron(stack: Stack) -> TypeGuard[LearnerStack]:
    return isinstance(stack, LearnerStack) and all(isinstance(layer, Linear) for layer in stack.layers)


def _autograd(stack: Stack, x: Tensor, y: Tensor, shared: bool) -> Sequence[Tensor]:
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        params = [p if p.requires_grad else p.detach().requires_grad_() for p in stack.params]
        inputs = x.expand(stack.size, *x.shape) if shared else x
        outputs = stack.replace(params)(inputs)
        losses = (outputs - y).square().mean(dim=(1, 2))
        # Summed over the learners, so that each gets its own gradient; of what a module does not use it is 0.
        grads = torch.autograd.grad(losses.sum(), params, create_graph=create_graph, materialize_grads=True)
        return losses if create_graph else losses.detach(), *grads


def _perceptron(stack: LearnerStack, x: Tensor, y: Tensor, shared: bool) -> Sequence[Tensor]:
    activations = tuple(layer.activation for layer in stack.layers)
    grads: Sequence[Tensor] = _PerceptronGradient.apply(  # type: ignore[no-untyped-call]
        activations, x.flatten(1 if shared else 2), y, *stack.params
    )
    return grads


def _linear(weight: Tensor, h: Tensor) -> Tensor:
    """Return W h for every learner; ``h`` is ``(M, in, k)``, or ``(in, k)`` where all learners share it."""
    if h.dim() == 2:
        return (weight.flatten(0, 1) @ h).view(*weight.shape[:2], -1)
    return torch.bmm(weight, h)


def _outer(delta: Tensor, h: Tensor) -> Tensor:
    """Return δ hᵀ for every learner; shapes as in `_linear`."""
    return _linear(delta, h.mT)


def _times(a: Tensor, slope: Tensor | None) -> Tensor:
    return a if slope is None else a * slope


class _PerceptronGradient(torch.autograd.Function):
    """Losses and gradient of a stack of perceptrons; features come before rows, ``(M, features, k)``."""

    @staticmethod
    def forward(
        ctx: Any, activations: tuple[str | None, ...], x: Tensor, y: Tensor, *params: Tensor
    ) -> tuple[Tensor, ...]:
        weights, biases = params[0::2], params[1::2]
        h = [x.mT]
        pre: list[Tensor | None] = []  # inputs of the activations whose derivatives need them
        for weight, bias, activation in zip(weights, biases, activations, strict=True):
            out = _linear(weight, h[-1]).add_(bias.unsqueeze(-1))
            pre.append(out if activation in SMOOTH else None)
            h.append(activate_(out, activation))
        scale = 2.0 / y.numel()
        errors = h[-1] - y.mT
        losses = errors.square().mean(dim=(1, 2))
        slopes = [slope(*layer) for layer in zip(activations, pre, h[1:], strict=True)]
        dh = errors.mul_(scale)
        deltas, grads = [], []
        cotangents: list[Tensor | None] = []  # of the outputs of those activations
        for i in reversed(range(len(weights))):
            delta = _times(dh, slopes[i])
            deltas.append(delta)
            cotangents.append(None if pre[i] is None else dh)
            grads += [delta.sum(-1), _outer(delta, h[i])]
            if i:
                dh = torch.bmm(weights[i].mT, delta)
        ctx.activations, ctx.scale = activations, scale
        ctx.n_layers = len(weights)
        ctx.save_for_backward(*weights, *h, *reversed(deltas), *slopes, *pre, *reversed(cotangents), errors)
        return losses, *reversed(grads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, loss_cotangents: Tensor, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate ⟨losses, their cotangents⟩ + ⟨gradient, its cotangents⟩.

        Derivatives commute: that of the second is the change of the losses' gradient when the parameters
        move along the cotangents, which costs one more pass forth and back. That of the first joins on the
        way back.
        """
        n = ctx.n_layers
        saved = ctx.saved_tensors
        weights, h, errors = saved[:n], saved[n : 2 * n + 1], saved[-1]
        deltas, slopes, pre, dhs = (saved[i * n + 1 : (i + 1) * n + 1] for i in range(2, 6))
        v_weights, v_biases = cotangents[0::2], cotangents[1::2]
        # How outputs change when the parameters move along the cotangents.
        r_pre: list[Tensor] = []
        r_h: list[Tensor | None] = [None]
        for i in range(n):
            change = _linear(v_weights[i], h[i]).add_(v_biases[i].unsqueeze(-1))
            previous = r_h[-1]
            if previous is not None:
                change.baddbmm_(weights[i], previous)
            r_pre.append(change)
            r_h.append(_times(change, slopes[i]))
        last = r_h[-1]
        assert last is not None
        # Change of the loss's derivative by the outputs, and that derivative for the losses themselves.
        r_dh = torch.addcmul(last * ctx.scale, loss_cotangents.view(-1, 1, 1), errors)
        need_params = ctx.needs_input_grad[3]
        grads: list[Tensor | None] = []
        y_grad = -r_dh.sum(0).mT if ctx.needs_input_grad[2] else None
        x_grad = None
        for i in reversed(range(n)):
            r_delta = _times(r_dh, slopes[i])
            activation = ctx.activations[i]
            if activation == "tanh":  # σ'' = -2 h σ'
                r_delta = torch.addcmul(r_delta, h[i + 1] * deltas[i], r_pre[i], value=-2)
            elif activation == "elu":  # σ'' = σ' below 0
                r_delta = torch.addcmul(r_delta, deltas[i] * (h[i + 1] < 0), r_pre[i])
            elif activation in SMOOTH:
                r_delta = torch.addcmul(r_delta, curvature(activation, pre[i]) * dhs[i], r_pre[i])
            if need_params:
                weight_grad = _outer(r_delta, h[i])
                previous = r_h[i]
                if previous is not None:
                    weight_grad.baddbmm_(deltas[i], previous.mT)
                grads += [r_delta.sum(-1), weight_grad]
            if i:
                r_dh = torch.bmm(weights[i].mT, r_delta).baddbmm_(v_weights[i].mT, deltas[i])
            elif ctx.needs_input_grad[1]:
                # Over learners and units at once: each learner adds to the same rows.
                if h[0].dim() == 3:
                    x_grad = torch.bmm(r_delta.mT, weights[0]).baddbmm_(deltas[0].mT, v_weights[0])
                else:
                    x_grad = r_delta.flatten(0, 1).mT @ weights[0].flatten(0, 1)
                    x_grad.addmm_(deltas[0].flatten(0, 1).mT, v_weights[0].flatten(0, 1))
        return None, x_grad, y_grad, *(reversed(grads) if need_params else [None] * 2 * n)
