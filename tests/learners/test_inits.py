"""Initialisation laws: the right matrices, the right distribution, and only from the generator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gym_taskdistill.learners.inits import INIT_LAWS, orthogonal, xavier_uniform

SHAPES = {
    "tall": (64, 4),
    "wide": (2, 64),
    "square": (16, 16),
    "image": (8, 4, 3, 3),
    "row": (1, 64),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
laws = pytest.mark.parametrize("law", INIT_LAWS.values(), ids=INIT_LAWS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def torch_draws(name: str, n: int, shape: tuple[int, ...], gain: float) -> Tensor:
    draw = getattr(torch.nn.init, name)
    return torch.stack([draw(torch.empty(shape), gain, generator=generator(i)) for i in range(n)])


def same_distribution(ours: Tensor, theirs: Tensor) -> bool:
    """Compare pooled quantiles, and the moments of every single entry, of two sets of draws."""
    n = len(ours)
    levels = torch.linspace(0.05, 0.95, 19)
    quantiles = torch.quantile(ours.flatten(), levels) - torch.quantile(theirs.flatten(), levels)
    scale = theirs.std()
    mean_error = (ours.mean(0) - theirs.mean(0)).abs().max() / scale
    variance_error = (ours.var(0) / theirs.var(0)).log().abs().max()
    noise = math.sqrt(2 / n)
    return bool(
        quantiles.abs().max() < 0.1 * scale and mean_error < 5 * noise and variance_error < 7.5 * noise
    )


@shapes
@pytest.mark.parametrize("gain", [math.sqrt(2), 0.01])
def test_orthogonal_weights_have_orthogonal_rows_or_columns(shape: tuple[int, ...], gain: float) -> None:
    weights = orthogonal((5, *shape), gain, generator())
    assert weights.shape == (5, *shape)
    assert weights.is_contiguous()
    matrices = weights.flatten(2)
    if shape[0] > math.prod(shape[1:]):
        matrices = matrices.mT
    gram = matrices @ matrices.mT
    identity = torch.eye(gram.shape[1]).expand_as(gram)
    torch.testing.assert_close(gram / gain**2, identity, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 4)])
def test_orthogonal_is_distributed_as_in_torch(shape: tuple[int, int]) -> None:
    ours = orthogonal((2000, *shape), math.sqrt(2), generator())
    assert same_distribution(ours, torch_draws("orthogonal_", 2000, shape, math.sqrt(2)))


def test_orthogonal_is_uniform_over_rotations_and_reflections() -> None:
    """Without the sign fix QR prefers matrices with a diagonal of one sign."""
    matrices = orthogonal((4000, 3, 3), 1.0, generator())
    assert torch.det(matrices).mean().abs() < 5 / math.sqrt(4000)
    assert matrices.diagonal(dim1=1, dim2=2).mean(dim=0).abs().max() < 5 / math.sqrt(3 * 4000)


@shapes
@pytest.mark.parametrize("gain", [1.0, 0.01])
def test_xavier_uniform_keeps_its_bounds(shape: tuple[int, ...], gain: float) -> None:
    weights = xavier_uniform((200, *shape), gain, generator())
    receptive = math.prod(shape[2:])
    bound = gain * math.sqrt(6 / ((shape[0] + shape[1]) * receptive))
    assert weights.shape == (200, *shape)
    assert weights.abs().max() <= bound
    assert weights.max() > 0.99 * bound
    assert weights.min() < -0.99 * bound
    assert weights.var().item() == pytest.approx(bound**2 / 3, rel=0.05)


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 2, 3, 3)])
def test_xavier_uniform_is_distributed_as_in_torch(shape: tuple[int, ...]) -> None:
    ours = xavier_uniform((2000, *shape), math.sqrt(2), generator())
    assert same_distribution(ours, torch_draws("xavier_uniform_", 2000, shape, math.sqrt(2)))


@laws
def test_the_generator_is_the_only_source_of_randomness(law: object) -> None:
    assert callable(law)
    torch.manual_seed(1)
    first = law((3, 5, 4), 1.0, generator(7))
    torch.manual_seed(2)
    again = law((3, 5, 4), 1.0, generator(7))
    other = law((3, 5, 4), 1.0, generator(8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@laws
def test_the_matrices_of_one_draw_differ(law: object) -> None:
    assert callable(law)
    first, second = law((2, 5, 4), 1.0, generator())
    assert not torch.allclose(first, second)
