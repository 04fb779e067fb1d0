"""Activations in value, in their derivatives, and at zero, where padding relies on it."""

from __future__ import annotations

import pytest
import torch

from gym_taskdistill.learners.activations import (
    ACTIVATIONS,
    FEWEST_FOR_SIGMOID,
    SMOOTH,
    activate_,
    curvature,
    slope,
)

SIZES = [FEWEST_FOR_SIGMOID - 1, FEWEST_FOR_SIGMOID, 3 * FEWEST_FOR_SIGMOID + 5]


@pytest.mark.parametrize("size", SIZES)
def test_tanh_is_exact_to_float32(size: int) -> None:
    x = torch.linspace(-12, 12, size)
    y = activate_(x.clone(), "tanh")
    torch.testing.assert_close(y.double(), x.double().tanh(), atol=2.5e-7, rtol=0)
    assert y.abs().max() <= 1


@pytest.mark.parametrize("size", SIZES)
def test_tanh_of_zero_is_zero(size: int) -> None:
    assert not activate_(torch.zeros(size), "tanh").any()


@pytest.mark.parametrize("size", SIZES)
def test_first_and_second_derivatives_of_tanh(size: int) -> None:
    x = torch.linspace(-3, 3, size).requires_grad_()
    expected_x = x.detach().double().requires_grad_()
    results = []
    for leaf, y in ((x, activate_(x * 1, "tanh")), (expected_x, (expected_x * 1).tanh())):
        (first,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), leaf)
        results.append((first.detach(), second))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours.double(), expected, atol=3e-6, rtol=1e-5)


def test_works_in_place() -> None:
    for activation in ("tanh", "relu", None):
        x = torch.randn(SIZES[-1], generator=torch.Generator().manual_seed(0))
        y = activate_(x, activation)
        assert y.data_ptr() == x.data_ptr()


def test_float64_takes_torchs_own() -> None:
    x = torch.linspace(-3, 3, SIZES[-1], dtype=torch.float64)
    assert torch.equal(activate_(x.clone(), "tanh"), x.tanh())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_and_their_derivatives_are_those_of_torchs_modules(activation: str) -> None:
    x = (torch.arange(-200, 201, dtype=torch.float64) / 20).requires_grad_()  # among them 0, as of padding
    y = ACTIVATIONS[activation]()(x)
    assert torch.equal(activate_(x.detach().clone(), activation), y.detach()) and not y[200]
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    found = slope(activation, x.detach(), y.detach())
    assert found is not None
    torch.testing.assert_close(found, first.detach(), atol=1e-12, rtol=1e-10)
    if activation in SMOOTH:
        (second,) = torch.autograd.grad(first.sum(), x)
        torch.testing.assert_close(curvature(activation, x.detach()), second, atol=1e-12, rtol=1e-10)
