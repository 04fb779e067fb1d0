"""Λ: Table 1's families, mixtures, and their plain descriptions."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.learners import (
    ALPHA_C,
    ANY_NETWORK,
    MLP,
    NAMED_LEARNERS,
    TABLE_1,
    LearnerDistribution,
    Learners,
    Mixture,
    learner_distribution,
    register_family,
    without_groups,
)
from gym_taskdistill.learners import named as named_learners

named = pytest.mark.parametrize("name", NAMED_LEARNERS)


def shape_for(name: str) -> tuple[int, ...]:
    """Return an observation shape that the named learners can see."""
    return (4, 84, 84) if name == "alpha_a" else (4,)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def architecture(learners: Learners, index: int) -> list[tuple[int, ...]]:
    """Return the shapes of one learner's weight matrices."""
    return [tuple(p.shape) for p in learners.module(index).parameters() if p.dim() > 1]


def equal(a: Learners, b: Learners) -> bool:
    return len(a.params) == len(b.params) and all(
        p.shape == q.shape and torch.equal(p, q) for p, q in zip(a.params, b.params, strict=True)
    )


# Orthogonal: all singular values are the gain; Xavier: entries vary by gain² · 2 / (in + out).
@pytest.mark.parametrize(
    ("name", "law", "gain", "last_gain"),
    [
        ("alpha_c", "orthogonal", math.sqrt(2), 0.01),
        ("ortho_1", "orthogonal", 1.0, 1.0),
        ("xavier", "xavier", math.sqrt(2), 0.01),
        ("xavier_1", "xavier", 1.0, 1.0),
    ],
)
def test_the_fixed_columns_of_table_1(name: str, law: str, gain: float, last_gain: float) -> None:
    learners = TABLE_1[name].sample(50, (4,), 2, generator())
    (stack,) = learners.stacks
    weights, biases = stack.params[::2], stack.params[1::2]
    assert [tuple(w.shape) for w in weights] == [(50, 64, 4), (50, 64, 64), (50, 2, 64)]
    assert [tuple(b.shape) for b in biases] == [(50, 64), (50, 64), (50, 2)]
    assert not any(b.any() for b in biases)
    assert [layer.activation for layer in stack.layers] == ["tanh", "tanh", None]
    for weight, sigma in zip(weights, (gain, gain, last_gain), strict=True):
        if law == "orthogonal":
            singular = torch.linalg.svdvals(weight)
            torch.testing.assert_close(singular, torch.full_like(singular, sigma), rtol=1e-4, atol=0)
        else:
            std = sigma * math.sqrt(2 / (weight.shape[1] + weight.shape[2]))
            assert weight.std().item() == pytest.approx(std, rel=0.03)
            assert weight.abs().max() <= math.sqrt(3) * std * (1 + 1e-6)
    if law == "orthogonal":  # so that the std of the last layer is known too
        assert weights[-1].std().item() == pytest.approx(last_gain / math.sqrt(64), rel=0.03)


def test_random_h_reaches_every_width() -> None:
    # The last layer alone tells the width and is cheap to draw.
    learners = TABLE_1["random_h"].sample(2000, (4,), 2, generator(), slice(2, None))
    widths = Counter(shapes[0][1] for shapes in own_shapes(learners))
    assert sum(widths.values()) == len(learners) == 2000
    assert set(widths) == set(range(32, 257))
    assert max(widths.values()) < 30  # 8.9 expected of each


def test_random_h_keeps_the_rest_of_alpha_c() -> None:
    learners = TABLE_1["random_h"].sample(20, (4,), 2, generator())
    for i, shapes in enumerate(own_shapes(learners)):
        width = shapes[0][0]
        assert shapes == ((width, 4), (width,), (width, width), (width,), (2, width), (2,))
        weights = [p.detach() for p in learners.module(i).parameters() if p.dim() > 1]
        for weight, sigma in zip(weights, (math.sqrt(2), math.sqrt(2), 0.01), strict=True):
            singular = torch.linalg.svdvals(weight)
            torch.testing.assert_close(singular, torch.full_like(singular, sigma), rtol=1e-4, atol=0)


def own_shapes(learners: Learners) -> list[tuple[tuple[int, ...], ...]]:
    """Return the unpadded parameter shapes of every learner."""
    return [
        shapes
        for stack in learners.stacks
        for shapes in stack.shapes or [layer_shapes(stack.layers)] * stack.size
    ]


def layer_shapes(layers: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(shape for layer in layers for shape in layer.shapes)


def test_random_l_reaches_every_depth() -> None:
    learners = TABLE_1["random_L"].sample(600, (4,), 2, generator())
    depths = Counter({len(stack.layers) - 1: stack.size for stack in learners.stacks})
    assert len(learners.stacks) == 6
    assert set(depths) == {1, 2, 3, 4, 5, 6}
    assert all(60 < count < 140 for count in depths.values())
    for index in (0, 300, 599):
        shapes = architecture(learners, index)
        assert shapes[0] == (64, 4)
        assert shapes[-1] == (2, 64)
        assert set(shapes[1:-1]) <= {(64, 64)}


def test_alpha_c_is_the_default_mlp() -> None:
    assert learner_distribution("alpha_c") == ALPHA_C == MLP()
    assert list(TABLE_1) == ["alpha_c", "ortho_1", "xavier", "xavier_1", "random_h", "random_L"]


@named
def test_the_seed_decides_the_draw(name: str) -> None:
    distribution = NAMED_LEARNERS[name]
    torch.manual_seed(1)
    n, shape = (2 if name == "alpha_a" else 13), shape_for(name)
    first = distribution.sample(n, shape, 2, generator(3))
    torch.manual_seed(2)
    again = distribution.sample(n, shape, 2, generator(3))
    other = distribution.sample(n, shape, 2, generator(4))
    assert len(first) == n
    assert equal(first, again)
    assert not equal(first, other)


@pytest.mark.slow
@pytest.mark.parametrize("n_learners", [1, 5, 6, 14])
def test_a_mixture_shares_a_batch_out_evenly(n_learners: int) -> None:
    members = [MLP(width=8 * (i + 1)) for i in range(3)]
    mixture = Mixture(tuple(members))
    totals: Counter[int] = Counter()
    for seed in range(60):
        learners = mixture.sample(n_learners, (4,), 2, generator(seed))
        widths = Counter(architecture(learners, i)[0][0] for i in range(len(learners)))
        assert sum(widths.values()) == n_learners
        assert set(widths.values()) <= {n_learners // 3, n_learners // 3 + 1}
        totals.update(widths)
    for member in members:
        assert totals[member.width] == pytest.approx(20 * n_learners, abs=20)  # 5 sigma and more


@pytest.mark.slow
@pytest.mark.parametrize("n_learners", [1, 3, 4, 10])
def test_weights_are_shares_of_a_batch(n_learners: int) -> None:
    mixture = Mixture((MLP(width=8), MLP(width=16)), weights=(3, 1))
    totals: Counter[int] = Counter()
    for seed in range(80):
        learners = mixture.sample(n_learners, (4,), 2, generator(seed))
        widths = Counter(architecture(learners, i)[0][0] for i in range(n_learners))
        assert sum(widths.values()) == n_learners
        assert widths[8] >= 3 * (n_learners // 4)
        assert widths[16] >= n_learners // 4
        totals.update(widths)
    assert totals[16] == pytest.approx(20 * n_learners, abs=0 if n_learners == 4 else 22)


@pytest.mark.parametrize("weights", [(1,), (1, 0), (1, -1), (1, 1, 1), (0.5, 0.5)])
def test_weights_that_do_not_fit_are_refused(weights: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="one positive integer weight for each of its 2 members"):
        Mixture((MLP(), MLP()), weights)


def test_one_architecture_per_batch_varies_over_batches() -> None:
    family = MLP(width=(8, 12), depth=(1, 3), per_batch=True)
    seen = set()
    for seed in range(150):
        learners = family.sample(5, (4,), 2, generator(seed))
        (stack,) = learners.stacks
        assert stack.size == 5
        assert stack.shapes is None
        seen.add((stack.layers[0].shapes[1][0], len(stack.layers) - 1))
        outputs = learners(torch.ones(1, 1, 4))
        assert len(torch.unique(outputs[:, 0, 0])) == 5  # but every learner draws its own weights
    assert seen == {(width, depth) for width in range(8, 13) for depth in range(1, 4)}
    with pytest.raises(TaskDistillError, match="has no single architecture"):
        family.layers((4,), 2)


def test_a_mixture_stacks_members_of_equal_layers() -> None:
    learners = Mixture((MLP(), MLP(gain=1.0), MLP(init="xavier_uniform"))).sample(9, (4,), 2, generator())
    assert [stack.size for stack in learners.stacks] == [9]


def test_a_mixture_of_equal_architectures_can_share_an_encoder() -> None:
    same, different = Mixture((MLP(), MLP(gain=1.0))), Mixture((MLP(), MLP(depth=1)))
    assert same.layers((4,), 2) == MLP().layers((4,), 2)
    with pytest.raises(TaskDistillError, match="has no single architecture.*encoder_layers=0"):
        different.layers((4,), 2)


@pytest.mark.parametrize("name", ["random_h", "random_L", "universal"])
def test_a_random_architecture_cannot_share_an_encoder(name: str) -> None:
    with pytest.raises(TaskDistillError, match="has no single architecture.*encoder_layers=0"):
        NAMED_LEARNERS[name].layers((4,), 2)


@pytest.mark.parametrize("name", ["alpha_c", "xavier_1"])
@pytest.mark.parametrize("l", [0, 1, 2, 3])
def test_parts_make_the_whole_architecture(name: str, l: int) -> None:
    distribution = TABLE_1[name]
    whole = distribution.layers((4,), 2)
    encoder = distribution.sample(1, (4,), 2, generator(0), slice(0, l))
    rest = distribution.sample(3, (4,), 2, generator(1), slice(l, None))
    (first,), (second,) = encoder.stacks, rest.stacks
    assert first.layers + second.layers == whole
    assert len(encoder) == 1
    assert len(rest) == 3
    assert tuple(p.shape[1:] for p in first.params + second.params) == layer_shapes(whole)
    # The last layer keeps the last layer's gain wherever the cut is.
    params = (first.params + second.params)[::2]
    gains = [float(p.pow(2).mean().sqrt() * math.sqrt(p.shape[1] + p.shape[2])) for p in params]
    assert gains[0] > gains[-1] * (50 if name == "alpha_c" else 0.8)
    x = torch.randn(1, 5, 4, generator=generator(2))
    assert rest(encoder(x)).shape == (3, 5, 2)


@named
def test_a_spec_survives_json(name: str) -> None:
    distribution = NAMED_LEARNERS[name]
    again = learner_distribution(json.loads(json.dumps(distribution.spec())))
    assert again == distribution
    n, shape = (1 if name == "alpha_a" else 7), shape_for(name)
    assert equal(again.sample(n, shape, 2, generator()), distribution.sample(n, shape, 2, generator()))


def test_members_of_a_mixture_may_be_named() -> None:
    spec = {"family": "mixture", "members": ["alpha_c", {"family": "mlp", "depth": [1, 6]}]}
    assert learner_distribution(spec) == Mixture((MLP(), MLP(depth=(1, 6))))


def test_a_distribution_is_returned_as_it_is() -> None:
    mine = MLP(width=3)
    assert learner_distribution(mine) is mine


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("alpha_k", r'no learners named "alpha_k"; known are .*Did you mean "alpha_c"\?'),
        ("xavier1", r'Did you mean "xavier_1"\?'),
        ({"family": "cnn3d"}, 'family "cnn3d" is unknown'),
        ({"width": 64}, 'family "None" is unknown'),
        ({"family": "custom", "name": "Mine()"}, "Register your own with register_family"),
        ({"family": "mlp", "widht": 64}, "wrong settings.*widht"),
        ({"family": "mlp", "width": 0}, "wrong settings.*width must be an integer >= 1"),
        ({"family": "mlp", "width": [9, 3]}, "wrong settings.*width"),
        ({"family": "mlp", "depth": -1}, "wrong settings.*depth must be an integer >= 0"),
        ({"family": "mlp", "activation": "tahn"}, r'wrong settings.*Did you mean "tanh"\?'),
        ({"family": "mlp", "init": "orthogonl"}, r'wrong settings.*Did you mean "orthogonal"\?'),
        ({"family": "mixture", "members": ["nobody"]}, 'no learners named "nobody"'),
        ({"family": "mixture", "members": []}, "wrong settings.*at least one member"),
        ({"family": "mixture"}, "wrong settings.*at least one member"),
        ({"family": "mixture", "members": None}, "wrong settings"),
        ({"family": "mixture", "membres": ["alpha_c"]}, "wrong settings.*membres"),
    ],
)
def test_wrong_descriptions_are_refused_in_one_line(spec: Any, message: str) -> None:
    with pytest.raises(TaskDistillError, match=message) as caught:
        learner_distribution(spec)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Shifted(LearnerDistribution):
    """A family of one's own: alpha_c with every bias shifted."""

    shift: float = 0.5

    def sample(
        self,
        n_learners: int,
        obs_shape: Sequence[int],
        n_outputs: int,
        generator: torch.Generator,
        part: slice = slice(None),
    ) -> Learners:
        learners = ALPHA_C.sample(n_learners, obs_shape, n_outputs, generator, part)
        return learners.replace([p + self.shift if p.dim() == 2 else p for p in learners.params])

    def spec(self) -> dict[str, Any]:
        return {"family": "shifted", "shift": self.shift}


@pytest.fixture
def families(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(named_learners, "_FAMILIES", dict(named_learners._FAMILIES))
    yield


@pytest.mark.usefixtures("families")
def test_a_registered_family_is_found_again() -> None:
    with pytest.raises(TaskDistillError, match="register_family"):
        learner_distribution(Shifted().spec())
    register_family("shifted", Shifted)
    assert learner_distribution(Shifted(0.25).spec()) == Shifted(0.25)
    mixture = Mixture((ALPHA_C, Shifted()))
    assert learner_distribution(json.loads(json.dumps(mixture.spec()))) == mixture
    with pytest.raises(TaskDistillError, match="wrong settings.*shfit"):
        learner_distribution({"family": "shifted", "shfit": 1})


@pytest.mark.usefixtures("families")
@pytest.mark.parametrize("name", ["mlp", "mixture", "custom"])
def test_the_names_of_families_are_unique(name: str) -> None:
    with pytest.raises(ValueError, match=f'"{name}" exists already'):
        register_family(name, Shifted)


def test_a_family_without_a_spec_describes_itself() -> None:
    class Nameless(Shifted):
        spec = LearnerDistribution.spec

    assert Nameless().spec() == {"family": "custom", "name": repr(Nameless())}


def test_any_network_is_twelve_architectures_of_which_six_are_in_no_shipped_mixture() -> None:
    assert without_groups(["any_network"]) == list(ANY_NETWORK)
    assert len(ANY_NETWORK) == 12
    drawn = {
        name: learners.sample(2, (4,), 2, generator())(torch.randn(2, 5, 4))
        for name, learners in ANY_NETWORK.items()
    }
    assert all(outputs.shape == (2, 5, 2) and outputs.isfinite().all() for outputs in drawn.values())
    assert all(learner_distribution(learners.spec()) == learners for learners in ANY_NETWORK.values())
