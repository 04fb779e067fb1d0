"""Stacked learners compute what each of them computes alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.learners import MLP, LearnerDistribution, Learners, LearnerStack, Mixture, Network

OBS, OUTPUTS, ROWS = 5, 3, 7

BATCHES: dict[str, LearnerDistribution] = {
    "one width": MLP(),
    "padded widths": MLP(width=(20, 60), last_gain=1.0),
    "several buckets": MLP(width=(8, 200), last_gain=1.0),
    "several depths": MLP(depth=(0, 4), last_gain=1.0),
    "all at once": MLP(width=(8, 200), depth=(1, 3), activation="relu", init="xavier_uniform"),
    "biases": MLP(width=(8, 32), activation="mish", init="torch"),
    "mixture": Mixture((MLP(), MLP(width=(8, 32)), MLP(depth=1, activation="relu"))),
}
batches = pytest.mark.parametrize("family", BATCHES.values(), ids=BATCHES)


def sample(family: LearnerDistribution, n: int = 9, dtype: torch.dtype = torch.float64) -> Learners:
    fresh = family.sample(n, (OBS,), OUTPUTS, torch.Generator().manual_seed(0))
    return fresh.replace([p.to(dtype) for p in fresh.params])


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@batches
def test_a_batch_equals_its_exported_modules(family: LearnerDistribution) -> None:
    learners = sample(family, dtype=torch.float32)
    learners = learners.replace([p + 0.01 for p in learners.params]) if _unpadded(learners) else learners
    x = inputs(len(learners), ROWS, OBS).float()
    together = learners(x)
    assert together.shape == (len(learners), ROWS, OUTPUTS)
    for i in range(len(learners)):
        torch.testing.assert_close(together[i], learners.module(i)(x[i]), atol=1e-6, rtol=1e-5)


def _unpadded(learners: Learners) -> bool:
    return all(stack.shapes is None for stack in learners.stacks)


@batches
def test_learners_differ_from_each_other(family: LearnerDistribution) -> None:
    outputs = sample(family)(inputs(1, ROWS, OBS))
    distances = torch.cdist(outputs.flatten(1), outputs.flatten(1))
    distances.fill_diagonal_(1.0)
    assert distances.min() > 1e-4


@batches
def test_a_shared_input_equals_the_same_input_for_each(family: LearnerDistribution) -> None:
    learners = sample(family)
    x = inputs(1, ROWS, OBS)
    assert torch.equal(learners(x), learners(x.expand(len(learners), ROWS, OBS)))


def test_observations_of_higher_rank_are_flattened() -> None:
    learners = MLP().sample(2, (2, 3), OUTPUTS, torch.Generator().manual_seed(0))
    x = inputs(2, ROWS, 2, 3).float()
    assert torch.equal(learners(x), learners(x.flatten(2)))


@batches
def test_every_learner_trains_as_if_it_were_alone(family: LearnerDistribution) -> None:
    """A padded learner, trained in its stack, equals the unpadded one under plain torch SGD."""
    learners = sample(family)
    x, y, lr = inputs(ROWS, OBS), inputs(ROWS, OUTPUTS), 0.3
    trained, _ = InnerSGD(lr=lr, steps=3).train(learners, x, y)
    probe = inputs(1, 4, OBS)
    together = trained(probe)
    for i in range(len(learners)):
        module = _double_module(learners, i)
        sgd = torch.optim.SGD(module.parameters(), lr=lr)
        for _ in range(3):
            sgd.zero_grad()
            nn.functional.mse_loss(module(x), y).backward()
            sgd.step()
        assert not torch.allclose(together[i], _double_module(learners, i)(probe[0]), atol=1e-3)
        torch.testing.assert_close(together[i], module(probe[0]), atol=1e-12, rtol=1e-10)


def _double_module(learners: Learners, index: int) -> nn.Sequential:
    """Export in float64: a plain export would round the parameters to torch's default dtype."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return learners.module(index)
    finally:
        torch.set_default_dtype(default)


def test_padding_is_zero_and_stays_zero() -> None:
    learners = sample(MLP(width=(8, 60), last_gain=1.0))
    trained, _ = InnerSGD(lr=0.3, steps=4).train(learners, inputs(ROWS, OBS), inputs(ROWS, OUTPUTS))
    for batch in (learners, trained):
        padded = 0
        for stack in batch.stacks:
            assert stack.shapes is not None
            for i, shapes in enumerate(stack.shapes):
                for param, shape in zip(stack.params, shapes, strict=True):
                    outside = torch.ones_like(param[i], dtype=torch.bool)
                    outside[tuple(slice(n) for n in shape)] = False
                    padded += int(outside.sum())
                    assert not param[i][outside].any()
                    if batch is trained:
                        assert param[i][~outside].all()
        assert padded > 0


def test_an_exported_module_is_plain_unpadded_and_detached() -> None:
    learners = sample(MLP(width=(20, 60)), dtype=torch.float32)
    stack = learners.stacks[0]
    assert stack.shapes is not None
    module = learners.module(0)
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    kinds = {type(m) for m in module.modules()}
    assert kinds == {nn.Sequential, nn.Linear, nn.Tanh}
    assert [tuple(m.weight.shape) for m in linears] == [shape for shape in stack.shapes[0][::2]]
    before = stack.params[0].clone()
    with torch.no_grad():
        linears[0].weight.zero_()
    assert torch.equal(stack.params[0], before)
    assert all(p.is_leaf and p.requires_grad for p in module.parameters())


def test_replace_gives_a_new_batch_in_the_same_order() -> None:
    learners = sample(BATCHES["all at once"])
    before = [p.clone() for p in learners.params]
    doubled = learners.replace([2 * p for p in learners.params])
    assert len(doubled) == len(learners) == 9
    assert all(torch.equal(p, q) for p, q in zip(learners.params, before, strict=True))
    assert all(torch.equal(p, 2 * q) for p, q in zip(doubled.params, before, strict=True))
    assert [s.shapes for s in doubled.stacks] == [s.shapes for s in learners.stacks]


def test_a_batch_concatenates_its_stacks() -> None:
    small, large = sample(MLP(), 2), sample(MLP(depth=1), 3)
    both = Learners([*small.stacks, *large.stacks])
    x = inputs(5, ROWS, OBS)
    assert len(both) == 5
    assert torch.equal(both(x), torch.cat([small(x[:2]), large(x[2:])]))
    assert repr(both) == "Learners(2 × 3 layers, 3 × 2 layers)"


@pytest.mark.parametrize("index", [-1, 3, 100])
def test_a_learner_that_does_not_exist_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match=f"There is no learner {index}: this batch holds 3."):
        sample(MLP(), 3).module(index)


def test_learners_without_layers_pass_their_input_through() -> None:
    nothing = Learners([LearnerStack((), (), 4)])
    x = inputs(4, ROWS, OBS)
    assert torch.equal(nothing(x), x)
    assert nothing.params == ()
    assert len(nothing.module(3)) == 0


def test_a_network_starts_as_drawn_and_owns_its_parameters() -> None:
    drawn = MLP(last_gain=1.0).sample(1, (OBS,), OUTPUTS, torch.Generator().manual_seed(0))
    network = Network(drawn)
    x = inputs(ROWS, OBS).float()
    torch.testing.assert_close(network(x), drawn.module()(x))
    before = [p.clone() for p in drawn.params]
    with torch.no_grad():
        for p in network.parameters():
            p.add_(1.0)
    assert all(torch.equal(p, q) for p, q in zip(drawn.params, before, strict=True))
    torch.testing.assert_close(network(x), network.learners.module()(x))
