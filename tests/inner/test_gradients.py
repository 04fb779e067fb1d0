"""The written-out gradient against autograd, and its derivative against autograd's and finite differences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from gym_taskdistill.inner.gradients import mse_gradients
from gym_taskdistill.learners import MLP, Learners, LearnerStack
from gym_taskdistill.learners.activations import ACTIVATIONS
from gym_taskdistill.learners.layers import Linear

K, OUTPUTS, M = 5, 3, 4
architectures = pytest.mark.parametrize(
    ("activation", "depth"), [*itertools.product(["tanh", "relu"], [0, 1, 3]), *((a, 3) for a in ACTIVATIONS)]
)
observations = pytest.mark.parametrize("obs_shape", [(4,), (2, 3)], ids=str)


@dataclass(frozen=True)
class Unknown:
    """A layer whose derivatives nobody has written out."""

    inner: Linear

    @property
    def activation(self) -> str | None:
        return self.inner.activation

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        return self.inner.shapes

    def forward(self, params: tuple[Tensor, ...], x: Tensor) -> Tensor:
        return self.inner.forward(params, x)

    def module(self, params: tuple[Tensor, ...]) -> torch.nn.Module:
        return self.inner.module(params)


def sample(activation: str, depth: int, obs_shape: tuple[int, ...] = (4,)) -> Learners:
    family = MLP(width=6, depth=depth, activation=activation, last_gain=0.7)
    learners = family.sample(M, obs_shape, OUTPUTS, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    # Fresh biases are 0; a wrong one would not be seen.
    params = [
        p.double() + 0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for p in learners.params
    ]
    return learners.replace([p.requires_grad_() for p in params])


def rows(obs_shape: tuple[int, ...] = (4,)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x, y = (
        torch.randn(K, *shape, generator=generator, dtype=torch.float64) for shape in (obs_shape, (OUTPUTS,))
    )
    return x.requires_grad_(), y.requires_grad_()


def opaque(learners: Learners) -> Learners:
    """Return the same learners, made of layers that only autograd can differentiate."""
    stacks = []
    for stack in learners.stacks:
        layers = []
        for layer in stack.layers:
            assert isinstance(layer, Linear)
            layers.append(Unknown(layer))
        stacks.append(LearnerStack(tuple(layers), stack.params, stack.size))
    return Learners(stacks)


@architectures
@observations
def test_the_gradient_and_its_derivative_equal_those_of_autograd(
    activation: str, depth: int, obs_shape: tuple[int, ...]
) -> None:
    learners, (x, y) = sample(activation, depth, obs_shape), rows(obs_shape)
    loss = (learners(x.unsqueeze(0)) - y).square().mean(dim=(1, 2)).sum()
    expected = torch.autograd.grad(loss, learners.params, create_graph=True)
    inputs = (*learners.params, x, y)

    def probe(grads: tuple[Tensor, ...]) -> Tensor:
        return torch.stack([(g * torch.cos(3 * g)).sum() for g in grads]).sum()

    second = torch.autograd.grad(probe(expected), inputs)
    for version in (learners, opaque(learners)):
        grads = mse_gradients(version, x, y)
        for g, e in zip(grads, expected, strict=True):
            torch.testing.assert_close(g, e, atol=1e-13, rtol=1e-11)
            assert e.abs().max() > 1e-4
        for g, e in zip(torch.autograd.grad(probe(grads), inputs), second, strict=True):
            torch.testing.assert_close(g, e, atol=1e-13, rtol=1e-10)


@architectures
def test_polyak_steps_equal_those_of_autograd(activation: str, depth: int) -> None:
    learners, (x, y) = sample(activation, depth), rows()
    losses = (learners(x.unsqueeze(0)) - y).square().mean(dim=(1, 2))
    plain = torch.autograd.grad(losses.sum(), learners.params, create_graph=True)
    norms = sum(g.square().flatten(1).sum(1) for g in plain)
    expected = [g * (losses / norms).view(-1, *[1] * (g.dim() - 1)) for g in plain]
    inputs = (*learners.params, x, y)

    def probe(grads: Sequence[Tensor]) -> Tensor:
        return torch.stack([(g * torch.cos(3 * g)).sum() for g in grads]).sum()

    second = torch.autograd.grad(probe(expected), inputs)
    for version in (learners, opaque(learners)):
        grads = mse_gradients(version, x, y, polyak=True)
        for g, e in zip(grads, expected, strict=True):
            torch.testing.assert_close(g, e, atol=1e-13, rtol=1e-10)
        for g, e in zip(torch.autograd.grad(probe(grads), inputs), second, strict=True):
            torch.testing.assert_close(g, e, atol=1e-12, rtol=1e-9)


def test_a_polyak_step_with_a_factor_would_bring_a_straight_loss_to_zero() -> None:
    learners, (x, y) = sample("tanh", 2), rows()
    losses = (learners(x.unsqueeze(0)) - y).square().mean(dim=(1, 2))
    plain = torch.autograd.grad(losses.sum(), learners.params)
    steps = [step.detach() for step in mse_gradients(learners, x, y, polyak=True, hidden=0.01)]
    slopes = sum((g * s).flatten(1).sum(1) for g, s in zip(plain, steps, strict=True))
    torch.testing.assert_close(slopes, losses)
    ratios = [
        float((s.norm() / g.norm()) / (steps[-1].norm() / plain[-1].norm()))
        for s, g in zip(steps, plain, strict=True)
    ]
    assert all(ratio < 0.03 for ratio in ratios[:-2]) and ratios[-2] > 0.3


def test_at_the_labels_a_polyak_step_is_nothing() -> None:
    learners, (x, _) = sample("tanh", 1), rows()
    one = learners.replace([p[:1] for p in learners.params])
    one = Learners([LearnerStack(one.stacks[0].layers, one.params, 1)])
    grads = mse_gradients(one, x, one(x.unsqueeze(0))[0].detach(), polyak=True)
    assert all(g.isfinite().all() and g.abs().max() < 1e-12 for g in grads)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu", "silu", "elu", "mish"])
def test_the_derivative_agrees_with_finite_differences(activation: str) -> None:
    learners, (x, y) = sample(activation, 2), rows()

    def gradients(x: Tensor, y: Tensor, *params: Tensor) -> tuple[Tensor, ...]:
        return mse_gradients(learners.replace(params), x, y)

    assert torch.autograd.gradcheck(gradients, (x, y, *learners.params), atol=1e-6)


def test_each_input_may_be_the_only_one_that_is_differentiated() -> None:
    learners, (x, y) = sample("tanh", 2), rows()
    whole = torch.autograd.grad(mse_gradients(learners, x, y)[0].square().sum(), (*learners.params, x, y))
    plain = learners.replace([p.detach() for p in learners.params])
    for index, inputs in ((-2, (x, y.detach())), (-1, (x.detach(), y))):
        value = mse_gradients(plain, *inputs)[0].square().sum()
        (alone,) = torch.autograd.grad(value, inputs[index])
        torch.testing.assert_close(alone, whole[index])
    value = mse_gradients(learners, x.detach(), y.detach())[0].square().sum()
    # The output layer's bias moves every output, but no slope of this loss's gradient alone.
    for g, e in zip(torch.autograd.grad(value, learners.params), whole, strict=False):
        torch.testing.assert_close(g, e)


def test_without_gradients_nothing_is_recorded() -> None:
    learners, (x, y) = sample("tanh", 1), rows()
    with torch.no_grad():
        for version in (learners, opaque(learners)):
            assert not any(g.requires_grad for g in mse_gradients(version, x, y))
