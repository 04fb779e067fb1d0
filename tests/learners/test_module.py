"""Any module as a learner: stacked it computes, trains and differentiates as it does alone."""

from __future__ import annotations

import copy
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.func import functional_call

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.learners import (
    MLP,
    Learners,
    LearnerStack,
    Mixture,
    ModuleFamily,
    learner_distribution,
)
from gym_taskdistill.learners.module_stack import ModuleStack, differentiable_attention

OBS, OUTPUTS, ROWS, M = 6, 3, 7, 3


class Residual(nn.Module):
    def __init__(self, obs_space: spaces.Box, n_outputs: int, width: int = 12) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))  # of no layer
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(width, n_outputs)  # not the last that is made
        self.first = nn.Linear(obs_space.shape[0], width)
        self.norm = nn.LayerNorm(width)
        self.block = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)) * self.scale
        return self.head(x + self.block(x))


class Attention(nn.Module):
    """Attention over the observation's dimensions, with a buffer of random features."""

    def __init__(self, obs_space: spaces.Box, n_outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(obs_space.shape[0], 8))
        self.register_buffer("place", torch.randn(obs_space.shape[0], 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(-1) * self.embedding + self.place
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1))


def transformer(obs_space: spaces.Box, n_outputs: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, activation="gelu")
    return nn.Sequential(
        nn.Unflatten(1, (-1, 1)), nn.Linear(1, 8), layer, nn.Flatten(), nn.LazyLinear(n_outputs)
    )


def convolutions(obs_space: spaces.Box, n_outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2, padding=1), nn.GroupNorm(2, 4), nn.Mish(),
        nn.Flatten(), nn.Linear(4 * 3 * 4, n_outputs), nn.Tanh(),
    )  # fmt: skip


def changing(obs_space: spaces.Box, n_outputs: int) -> nn.Module:
    """Networks of several widths and activations, drawn from each global source."""
    width = int(np.random.choice([4, 5]))
    activation = random.choice([nn.ReLU(), nn.Tanh()])
    return nn.Sequential(nn.Linear(obs_space.shape[0], width), activation, nn.Linear(width, n_outputs))


class Branching(nn.Module):
    """What it computes depends on values, so that torch.vmap cannot."""

    def __init__(self, obs_space: spaces.Box, n_outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(obs_space.shape[0], n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) if x.sum() > 0.1 else self.head(-2 * x)


FACTORIES: dict[str, Callable[..., nn.Module]] = {
    "residual": Residual,
    "attention": Attention,
    "transformer": transformer,
    "convolutions": convolutions,
    "changing": changing,
    "branching": Branching,
}
factories = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


def sample(factory: Any, n: int = M, seed: int = 0) -> Learners:
    return ModuleFamily(factory).sample(n, (OBS,), OUTPUTS, torch.Generator().manual_seed(seed))


def normal(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def double(learners: Learners) -> Learners:
    stacks = []
    for stack in learners.stacks:
        assert isinstance(stack, ModuleStack)
        fixed = tuple(f.double() for f in stack.fixed)
        params = tuple(p.double() for p in stack.params)
        stacks.append(ModuleStack(stack.skeleton, params, fixed, stack.vectorised))
    return Learners(stacks)


@factories
def test_stacked_learners_train_and_differentiate_as_each_does_alone(factory: Any) -> None:
    fresh = sample(factory, 5)
    alone = [copy.deepcopy(fresh.module(i)).double() for i in range(5)]
    learners = double(fresh)
    x, y, probe = normal(ROWS, OBS).requires_grad_(), normal(ROWS, OUTPUTS, seed=2), normal(4, OBS, seed=3)
    torch.testing.assert_close(
        learners(probe.unsqueeze(0)), torch.stack([m(probe) for m in alone]), atol=1e-12, rtol=1e-10
    )
    trained, _ = InnerSGD(lr=0.3, steps=2).train(learners, x, y, create_graph=True)
    outputs = trained(probe.unsqueeze(0))
    expected = []
    for module in alone:
        params = dict(module.named_parameters())
        for _ in range(2):
            with differentiable_attention():
                loss = (functional_call(module, params, (x,)) - y).square().mean()
            grads = torch.autograd.grad(
                loss, tuple(params.values()), create_graph=True, materialize_grads=True
            )
            params = {name: p - 0.3 * g for (name, p), g in zip(params.items(), grads, strict=True)}
        with differentiable_attention():
            expected.append(functional_call(module, params, (probe,)))
    torch.testing.assert_close(outputs, torch.stack(expected), atol=1e-10, rtol=1e-8)
    gradients = [torch.autograd.grad(o.square().sum(), x)[0] for o in (outputs, torch.stack(expected))]
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=1e-7)
    assert gradients[0].abs().max() > 1e-3


def test_what_can_be_stacked_is() -> None:
    for factory in (Residual, Attention, transformer, convolutions):
        (stack,) = sample(factory).stacks
        assert isinstance(stack, ModuleStack) and stack.vectorised
    assert 1 < len(sample(changing, 12).stacks) <= 4
    (stack,) = sample(Branching).stacks
    assert isinstance(stack, ModuleStack) and not stack.vectorised


def test_the_last_layer_is_found_by_what_is_called_last() -> None:
    linear = {"residual": ("head.weight", "head.bias"), "attention": ("head.weight", "head.bias")}
    for name, head in linear.items():
        (stack,) = sample(FACTORIES[name]).stacks
        assert isinstance(stack, ModuleStack) and stack.has_linear_head
        assert stack.skeleton.trained[-stack.n_head :] == head
    for body in (nn.Tanh(), nn.LayerNorm(OUTPUTS)):
        (stack,) = sample(
            lambda s, n, body=body: nn.Sequential(nn.Linear(OBS, n), copy.deepcopy(body))
        ).stacks
        assert not stack.has_linear_head

    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(OBS, OUTPUTS)
            nn.init.zeros_(self.head.bias)

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.head(x)

    assert not sample(lambda space, n: Doubled()).stacks[0].has_linear_head


@pytest.mark.parametrize("lr_hidden", [0.0, 0.5])
@pytest.mark.parametrize("activation", ["tanh", "gelu"])
def test_an_mlp_as_a_module_equals_the_written_out_path(activation: str, lr_hidden: float) -> None:
    fresh = MLP(width=8, activation=activation, init="torch").sample(
        M, (OBS,), OUTPUTS, torch.Generator().manual_seed(0)
    )
    made = iter([fresh.module(i) for i in range(M)])
    learners = double(sample(lambda space, n: next(made)))
    fast = fresh.replace([p.double() for p in fresh.params])
    x, y = normal(ROWS, OBS).requires_grad_(), normal(ROWS, OUTPUTS, seed=2)
    rule = InnerSGD(lr=0.4, steps=3, momentum=0.5, lr_hidden=lr_hidden)
    results = []
    for batch in (fast, learners):
        trained, _ = rule.train(batch, x, y, create_graph=True)
        outputs = trained(normal(1, 4, OBS, seed=3))
        results.append((outputs, torch.autograd.grad(outputs.square().sum(), x)[0]))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


@factories
def test_draws_follow_from_the_seed_alone(factory: Any) -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    one = sample(factory)
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(9)
        again = sample(factory)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(one.params, again.params, strict=True))
    assert all(p.dtype == torch.float32 for p in again.params)
    probe = normal(1, 4, OBS, dtype=torch.float32)
    outputs = [learners(probe) for learners in (one, sample(factory, seed=1))]
    assert (
        torch.cdist(torch.cat(outputs).flatten(1), torch.cat(outputs).flatten(1)).fill_diagonal_(1).min() > 0
    )


def test_buffers_and_frozen_layers_stay_and_exports_are_the_users_own_class() -> None:
    def frozen(space: spaces.Box, n_outputs: int) -> nn.Module:
        module = Attention(space, n_outputs)
        module.embedding.requires_grad_(False)
        return module

    fresh = sample(frozen)
    trained, _ = InnerSGD(lr=0.5).train(fresh, normal(ROWS, OBS).float(), normal(ROWS, OUTPUTS).float())
    before, after = fresh.module(1)[0], trained.module(1)[0]
    assert isinstance(after, Attention) and torch.equal(before.place, after.place)
    assert torch.equal(before.embedding, after.embedding)
    assert not torch.equal(before.head.weight, after.head.weight)


def test_members_of_mixtures() -> None:
    learners = Mixture((MLP(), ModuleFamily(Residual))).sample(
        4, (OBS,), OUTPUTS, torch.Generator().manual_seed(0)
    )
    assert {type(stack) for stack in learners.stacks} == {LearnerStack, ModuleStack}
    probe = normal(1, 4, OBS, dtype=torch.float32)
    for i, outputs in enumerate(learners(probe)):
        torch.testing.assert_close(learners.module(i)(probe[0]), outputs)


SAME = nn.Linear(OBS, OUTPUTS)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            lambda s, n: nn.Sequential(nn.Linear(OBS, n), nn.BatchNorm1d(n)),
            r"BatchNorm1d, at 1, .* LayerNorm",
        ),
        (lambda s, n: nn.Sequential(nn.Linear(OBS, n), nn.LazyBatchNorm1d()), "BatchNorm1d"),
        (lambda s, n: 3, r"must return a torch\.nn\.Module, but returned 3"),
        (lambda s, n: nn.Linear(OBS, n + 1), r"outputs of shape \(2, 3\), but gives \(2, 4\)"),
        (lambda s, n: nn.LSTM(OBS, n), "but gives tuple"),
        (lambda s, n: nn.Linear(OBS + 1, n), r"fails on inputs of shape \(2, 6\): RuntimeError"),
        (lambda s, n: nn.Linear(s.nothing, n), "fails: AttributeError"),
        (lambda s: nn.Linear(OBS, 3), "fails: TypeError"),
        (lambda s, n: SAME, "one network again and again"),
        (lambda s, n: Cut(n), "no parameters"),
        (lambda s, n: nn.Sequential(nn.Linear(OBS, n), Noise()), "other outputs each time"),
    ],
)
def test_what_cannot_be_a_learner_is_refused(factory: Any, message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        sample(factory)


class Cut(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.n]


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def test_dropout_is_off_and_says_so() -> None:
    with pytest.warns(UserWarning, match="has dropout, which is off"):
        learners = sample(lambda s, n: nn.Sequential(nn.Linear(OBS, 9), nn.Dropout(0.5), nn.Linear(9, n)))
    probe = normal(1, 4, OBS, dtype=torch.float32)
    assert torch.equal(learners(probe), learners(probe))


def test_a_module_has_no_layers_to_share() -> None:
    with pytest.raises(TaskDistillError, match="encoder_layers=0"):
        ModuleFamily(Residual).sample(1, (OBS,), OUTPUTS, torch.Generator(), slice(1, None))
    assert not ModuleFamily(Residual).sample(1, (OBS,), OUTPUTS, torch.Generator(), slice(0, 0)).params


def test_functions_and_their_names_are_families() -> None:
    family = learner_distribution(Residual)
    assert family == ModuleFamily(Residual) == learner_distribution(family.spec())
    wide = ModuleFamily(Residual, {"width": 20})
    again = learner_distribution(json.loads(json.dumps(wide.spec())))
    assert again == wide and str(wide).endswith("Residual, width=20)")
    assert again.sample(1, (OBS,), OUTPUTS, torch.Generator()).module(0)[0].first.out_features == 20


@pytest.mark.parametrize("factory", [SAME, "no colon:", "a:b c", 3, "os.path:"])
def test_what_is_no_factory_is_refused(factory: Any) -> None:
    with pytest.raises(TaskDistillError, match="factory must be a function"):
        learner_distribution({"family": "module", "factory": factory})


def test_a_lambdas_name_finds_nothing() -> None:
    family = ModuleFamily(lambda space, n: nn.Linear(OBS, n))
    with pytest.raises(TaskDistillError, match="no name by which it could be found.*pass the function"):
        learner_distribution(family.spec())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that nobody has imported yet, and that says when it is."""
    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(
        "import pathlib\nfrom torch import nn\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "def net(space, n, width=4):\n"
        "    return nn.Sequential(nn.Linear(space.shape[0], width), nn.ELU(), nn.Linear(width, n))\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_what_data_names_is_imported_only_on_trust(package: str, tmp_path: Path) -> None:
    spec = {"family": "mixture", "members": ["alpha_c", {"family": "module", "factory": f"{package}:net"}]}
    learners = learner_distribution(spec)
    assert json.loads(json.dumps(learners.spec())) and package in repr(learners)
    with pytest.raises(TaskDistillError, match=f'"{package}:net", which is not run unasked.*trust=True'):
        learners.sample(2, (OBS,), OUTPUTS, torch.Generator())
    assert package not in sys.modules and not (tmp_path / "ran").exists()
    trusted = learner_distribution(spec, trust=True)
    assert (tmp_path / "ran").exists()
    assert len(trusted.sample(2, (OBS,), OUTPUTS, torch.Generator())) == 2
    assert len(learners.sample(2, (OBS,), OUTPUTS, torch.Generator())) == 2  # trusted from now on
    for name, message in ((f"{package}:other", "has no other"), (f"{package}:number", "is no function")):
        with pytest.raises(TaskDistillError, match=message):
            learner_distribution(name, trust=True)
    with pytest.raises(TaskDistillError, match="cannot be imported: ModuleNotFoundError"):
        learner_distribution("nowhere_at_all:net", trust=True)
