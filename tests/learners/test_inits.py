"""Initialisation laws: the right matrices, the right distribution, and only from the generator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gym_taskdistill.learners import CNN, MLP, LearnerDistribution
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


@pytest.mark.parametrize("name", ["xavier_uniform", "xavier_normal"])
@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (4, 2, 3, 3)])
def test_glorots_laws_are_distributed_as_in_torch(name: str, shape: tuple[int, ...]) -> None:
    ours = INIT_LAWS[name]((2000, *shape), math.sqrt(2), generator())
    assert same_distribution(ours, torch_draws(f"{name}_", 2000, shape, math.sqrt(2)))


@pytest.mark.parametrize("name", ["kaiming_uniform", "kaiming_normal"])
@pytest.mark.parametrize("shape", [(3, 6), (4, 2, 3, 3)])
def test_hes_laws_are_distributed_as_in_torch(name: str, shape: tuple[int, ...]) -> None:
    ours = INIT_LAWS[name]((2000, *shape), math.sqrt(2), generator())
    draw = getattr(torch.nn.init, f"{name}_")
    theirs = [draw(torch.empty(shape), nonlinearity="relu", generator=generator(i)) for i in range(2000)]
    assert same_distribution(ours, torch.stack(theirs))


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        (MLP(width=4000, depth=1, init="torch"), (5,)),
        (CNN(channels=(1000,), kernel_sizes=(2,), strides=(2,), hidden=1000, init="torch"), (3, 2, 2)),
    ],
    ids=["mlp", "cnn"],
)
def test_the_law_torch_is_that_of_torchs_own_layers_with_their_biases(
    family: LearnerDistribution, shape: tuple[int, ...]
) -> None:
    ours = family.sample(1, shape, 2, generator())
    modules = [m for m in ours.module(0).modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for module in modules:
            module.reset_parameters()
    for own, theirs in zip(ours.params, (p for m in modules for p in m.parameters()), strict=True):
        if own.numel() > 2:
            assert own.std().item() == pytest.approx(theirs.std().item(), rel=0.05)
            levels = torch.linspace(0.05, 0.95, 19)
            apart = torch.quantile(own[0].flatten()[:9999], levels)
            apart -= torch.quantile(theirs.flatten()[:9999], levels)
            assert apart.abs().max() < 6 * math.sqrt(2 / min(own.numel(), 9999)) * theirs.std()
        else:  # the output layer's biases
            assert 0 < own.abs().max() <= modules[-1].in_features ** -0.5


def test_each_law_has_its_own_gains() -> None:
    assert MLP(init="torch") == MLP(init="torch", gain=1.0, last_gain=1.0)
    assert MLP(init="kaiming_normal") == MLP(init="kaiming_normal", gain=math.sqrt(2), last_gain=0.01)
    assert str(MLP(init="torch")) == "mlp(init=torch)"
    assert str(CNN(init="torch", last_gain=0.5)) == "cnn(init=torch, last_gain=0.5)"


@pytest.mark.parametrize("law", INIT_LAWS)
def test_learners_are_float32_whatever_the_default(law: str) -> None:
    expected = MLP(width=5, init=law).sample(2, (3,), 2, generator()).params
    torch.set_default_dtype(torch.float64)
    try:
        drawn = MLP(width=5, init=law).sample(2, (3,), 2, generator()).params
    finally:
        torch.set_default_dtype(torch.float32)
    for own, other in zip(drawn, expected, strict=True):
        assert torch.equal(own, other) and own.dtype == torch.float32


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
