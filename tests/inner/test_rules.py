"""The inner step against SGD written out by hand with plain autograd."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import INNER_RULES, InnerSGD, inner_rule
from gym_taskdistill.learners import MLP, LearnerDistribution, Learners, LearnerStack, Mixture
from gym_taskdistill.policies.trained import train_learners

OBS, OUTPUTS, K, M = 4, 3, 6, 5

FAMILIES: dict[str, LearnerDistribution] = {
    "alpha_c": MLP(width=16, last_gain=0.5),
    "random": Mixture(
        (
            MLP(width=(4, 90), last_gain=0.5),
            MLP(depth=(1, 3), width=8, last_gain=0.5, init="xavier_uniform"),
        )
    ),
}
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
steps = pytest.mark.parametrize("inner_steps", [1, 3])
schedules = pytest.mark.parametrize(
    ("inner_steps", "momentum", "decay"), [(1, 0.0, 1.0), (3, 0.0, 1.0), (4, 0.7, 1.0), (3, 0.5, 0.8)]
)


@dataclass
class Problem:
    """Inputs of the inner step, all in float64, with gradients on."""

    x: Tensor
    y: Tensor
    inner_lr: Tensor
    log_std_label: Tensor

    @classmethod
    def random(cls, inner_lr: float = 0.2) -> Problem:
        generator = torch.Generator().manual_seed(1)

        def normal(*shape: int) -> Tensor:
            draw = torch.randn(*shape, generator=generator, dtype=torch.float64)
            return draw.requires_grad_()

        lr = torch.tensor(inner_lr, dtype=torch.float64, requires_grad=True)
        return cls(normal(K, OBS), normal(K, OUTPUTS), lr, normal(OUTPUTS))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.x, self.y, self.inner_lr, self.log_std_label


def sample(family: LearnerDistribution, n: int = M) -> Learners:
    fresh = family.sample(n, (OBS,), OUTPUTS, torch.Generator().manual_seed(0))
    return fresh.replace([p.double() for p in fresh.params])


def train(
    learners: Learners, problem: Problem, create_graph: bool = False, **settings: Any
) -> tuple[Learners, Tensor]:
    fresh_log_std = torch.zeros(len(learners), OUTPUTS, dtype=torch.float64)
    trained, log_std = InnerSGD(lr=problem.inner_lr, **settings).train(
        learners,
        problem.x,
        problem.y,
        log_std=fresh_log_std,
        log_std_label=problem.log_std_label,
        create_graph=create_graph,
    )
    assert log_std is not None
    return trained, log_std


def sgd(steps: int, momentum: float, lr_decay: float) -> dict[str, Any]:
    return {"steps": steps, "momentum": momentum, "lr_decay": lr_decay}


def own_params(learners: Learners) -> list[list[Tensor]]:
    """Return every learner's own parameters, cut out of the stacks, padding removed."""
    result = []
    for stack in learners.stacks:
        for i in range(stack.size):
            whole = tuple(tuple(p.shape[1:]) for p in stack.params)
            shapes = stack.shapes[i] if stack.shapes else whole
            result.append(
                [p[(i, *(slice(n) for n in shape))] for p, shape in zip(stack.params, shapes, strict=True)]
            )
    return result


def forward(params: list[Tensor], x: Tensor) -> Tensor:
    for i in range(0, len(params), 2):
        x = torch.addmm(params[i + 1], x, params[i].T)
        if i + 2 < len(params):
            x = torch.tanh(x)
    return x


def train_by_hand(
    params: list[Tensor],
    problem: Problem,
    inner_steps: int,
    momentum: float = 0.0,
    decay: float = 1.0,
    hidden: Tensor | float = 1.0,
) -> tuple[list[Tensor], Tensor]:
    """Train one learner with nothing but autograd and the definition of SGD."""
    params = [p.detach().clone().requires_grad_() for p in params]
    log_std = torch.zeros(OUTPUTS, dtype=torch.float64, requires_grad=True)
    velocities: list[Any] = [0.0] * (len(params) + 1)
    for step in range(inner_steps):
        squares = (forward(params, problem.x) - problem.y) ** 2
        loss = squares.sum() / (K * OUTPUTS)
        loss = loss + ((log_std - problem.log_std_label) ** 2).sum() / OUTPUTS
        grads = torch.autograd.grad(loss, [*params, log_std], create_graph=True)
        velocities = [momentum * v + g for v, g in zip(velocities, grads, strict=True)]
        factors = [hidden] * (len(params) - 2) + [1.0, 1.0, 1.0]
        pairs = zip([*params, log_std], velocities, factors, strict=True)
        *params, log_std = [p - problem.inner_lr * factor * decay**step * v for p, v, factor in pairs]
    return params, log_std


def outer_loss(outputs: Tensor, log_std: Tensor) -> Tensor:
    """Stand in for PPO's loss: any nonlinear scalar of what the trained learner does."""
    return (torch.sin(2 * outputs) * torch.exp(log_std)).sum()


def probe() -> Tensor:
    return torch.randn(4, OBS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@families
@schedules
def test_trained_parameters_equal_sgd_by_hand(
    family: LearnerDistribution, inner_steps: int, momentum: float, decay: float
) -> None:
    problem, fresh = Problem.random(), sample(family)
    trained, log_std = train(fresh, problem, **sgd(inner_steps, momentum, decay))
    pairs = zip(own_params(fresh), own_params(trained), strict=True)
    for i, (before, after) in enumerate(pairs):
        expected, expected_log_std = train_by_hand(before, problem, inner_steps, momentum, decay)
        for old, p, q in zip(before, after, expected, strict=True):
            torch.testing.assert_close(p, q.detach(), atol=1e-13, rtol=1e-11)
            assert not torch.allclose(p, old, atol=1e-6)
        torch.testing.assert_close(log_std[i], expected_log_std.detach(), atol=1e-14, rtol=1e-12)


@families
@schedules
def test_meta_gradients_equal_autograd_by_hand(
    family: LearnerDistribution, inner_steps: int, momentum: float, decay: float
) -> None:
    """The sum over M learners at once has the sum of the gradients of M learners one by one."""
    problem, fresh = Problem.random(), sample(family)
    trained, log_std = train(fresh, problem, **sgd(inner_steps, momentum, decay), create_graph=True)
    outputs = trained(probe().unsqueeze(0))
    gradients = torch.autograd.grad(outer_loss(outputs, log_std.unsqueeze(1)), problem.tensors)

    expected = [torch.zeros_like(t) for t in problem.tensors]
    for params in own_params(fresh):
        own, own_log_std = train_by_hand(params, problem, inner_steps, momentum, decay)
        loss = outer_loss(forward(own, probe()), own_log_std)
        for total, g in zip(expected, torch.autograd.grad(loss, problem.tensors), strict=True):
            total += g
    for g, e in zip(gradients, expected, strict=True):
        assert e.abs().max() > 1e-3
        torch.testing.assert_close(g, e, atol=1e-11, rtol=1e-9)


@families
@steps
@pytest.mark.parametrize("factor", [0.3, 0.0])
def test_the_hidden_layers_may_have_a_rate_of_their_own(
    family: LearnerDistribution, inner_steps: int, factor: float
) -> None:
    problem, fresh = Problem.random(), sample(family)
    hidden = torch.tensor(factor, dtype=torch.float64, requires_grad=True)
    given = hidden if factor else 0.0
    trained, _ = train(fresh, problem, steps=inner_steps, lr_hidden=given, create_graph=True)
    inputs = (*problem.tensors[:3], *([hidden] if factor else []))
    gradients = torch.autograd.grad(torch.sin(2 * trained(probe().unsqueeze(0))).sum(), inputs)
    expected = [torch.zeros_like(t) for t in inputs]
    for before, after in zip(own_params(fresh), own_params(trained), strict=True):
        own, _ = train_by_hand(before, problem, inner_steps, hidden=hidden)
        for p, q in zip(after, own, strict=True):
            torch.testing.assert_close(p, q, atol=1e-13, rtol=1e-11)
        loss = torch.sin(2 * forward(own, probe())).sum()
        for total, g in zip(expected, torch.autograd.grad(loss, inputs), strict=True):
            total += g
    for g, e in zip(gradients, expected, strict=True):
        assert e.abs().max() > 1e-3
        torch.testing.assert_close(g, e, atol=1e-11, rtol=1e-9)


@pytest.mark.slow
@steps
def test_meta_gradients_agree_with_finite_differences(inner_steps: int) -> None:
    problem = Problem.random()
    fresh = sample(FAMILIES["random"], 2)

    def outputs(x: Tensor, y: Tensor, inner_lr: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        trained, log_std = train(fresh, Problem(x, y, inner_lr, label), steps=inner_steps, create_graph=True)
        return trained(probe().unsqueeze(0)), log_std

    assert torch.autograd.gradcheck(outputs, problem.tensors, atol=1e-6, rtol=1e-5)


@families
@steps
def test_without_the_graph_the_values_are_the_same(family: LearnerDistribution, inner_steps: int) -> None:
    problem, fresh = Problem.random(), sample(family)
    with_graph, log_std = train(fresh, problem, steps=inner_steps, create_graph=True)
    assert all(p.requires_grad for p in (*with_graph.params, log_std))
    for context in (nullcontext(), torch.no_grad()):
        with context:
            without, plain_log_std = train(fresh, problem, steps=inner_steps)
        assert torch.equal(plain_log_std, log_std)
        for p, q in zip(without.params, with_graph.params, strict=True):
            assert torch.equal(p, q)
        for p in (*without.params, plain_log_std):
            assert not p.requires_grad
            assert p.grad_fn is None


@pytest.mark.parametrize("create_graph", [False, True])
def test_fresh_learners_stay_as_they_are(create_graph: bool) -> None:
    """They are the fixed initialisations of a whole meta-epoch."""
    problem, fresh = Problem.random(), sample(FAMILIES["random"])
    before = [p.clone() for p in fresh.params]
    inputs = [t.detach().clone() for t in problem.tensors]
    for _ in range(2):
        trained, log_std = train(fresh, problem, steps=3, create_graph=create_graph)
        if create_graph:
            outer_loss(trained(probe().unsqueeze(0)), log_std.unsqueeze(1)).backward()
    for p, q in zip(fresh.params, before, strict=True):
        assert torch.equal(p, q)
        assert not p.requires_grad
        assert p.grad is None
    assert all(torch.equal(t, q) for t, q in zip(problem.tensors, inputs, strict=True))
    if create_graph:
        assert problem.x.grad is not None


def test_training_again_gives_the_same() -> None:
    problem, fresh = Problem.random(), sample(FAMILIES["random"])
    (first, _), (second, _) = train(fresh, problem), train(fresh, problem)
    assert all(torch.equal(p, q) for p, q in zip(first.params, second.params, strict=True))


@pytest.mark.parametrize("inner_lr", [0.02, 0.5, 3.0])
@steps
def test_log_std_has_a_closed_form(inner_lr: float, inner_steps: int) -> None:
    """One step from 0 gives 2·lr·label/A; n steps give (1 - (1 - 2·lr/A)ⁿ)·label."""
    problem = Problem.random(inner_lr)
    _, log_std = train(sample(FAMILIES["alpha_c"]), problem, steps=inner_steps)
    label = problem.log_std_label.detach()
    expected = (1 - (1 - 2 * inner_lr / OUTPUTS) ** inner_steps) * label
    torch.testing.assert_close(log_std, expected.expand(M, OUTPUTS), atol=1e-13, rtol=1e-11)
    if inner_steps == 1:
        torch.testing.assert_close(log_std[0], 2 * inner_lr * label / OUTPUTS)


def test_log_std_does_not_touch_the_network() -> None:
    problem, fresh = Problem.random(), sample(FAMILIES["random"])
    continuous, _ = train(fresh, problem)
    discrete, nothing = InnerSGD(lr=problem.inner_lr).train(fresh, problem.x, problem.y)
    assert nothing is None
    for p, q in zip(continuous.params, discrete.params, strict=True):
        torch.testing.assert_close(p, q, atol=1e-15, rtol=0)


def test_a_number_may_be_the_learning_rate() -> None:
    problem, fresh = Problem.random(0.2), sample(FAMILIES["random"])
    by_tensor, _ = InnerSGD(lr=problem.inner_lr).train(fresh, problem.x, problem.y)
    by_number, _ = InnerSGD(lr=0.2).train(fresh, problem.x, problem.y)
    for p, q in zip(by_tensor.params, by_number.params, strict=True):
        assert torch.equal(p, q)


def test_the_step_lowers_the_loss() -> None:
    problem, fresh = Problem.random(), sample(FAMILIES["random"])
    losses = []
    for inner_steps in (1, 2, 4, 8):
        trained, _ = train(fresh, problem, steps=inner_steps)
        losses.append((trained(problem.x.detach().unsqueeze(0)) - problem.y).square().mean((1, 2)))
    start = (fresh(problem.x.detach().unsqueeze(0)) - problem.y).square().mean((1, 2))
    for before, after in zip([start, *losses], losses, strict=False):
        assert (after < before).all()


@pytest.mark.parametrize("l", [1, 2])
def test_the_encoder_gets_both_of_its_gradients(l: int) -> None:
    """An encoder shapes the rows that learners train on and the observations that they act on."""
    problem = Problem.random()
    generator = torch.Generator().manual_seed(0)
    family = MLP(width=8, last_gain=0.5)
    encoder = family.sample(1, (OBS,), OUTPUTS, generator, slice(0, l))
    encoder = encoder.replace([p.double().requires_grad_() for p in encoder.params])
    fresh = family.sample(M, (OBS,), OUTPUTS, generator, slice(l, None))
    fresh = fresh.replace([p.double() for p in fresh.params])
    trained = train_learners(
        fresh,
        encoder,
        problem.x,
        problem.y,
        InnerSGD(lr=problem.inner_lr, steps=2),
        log_std_label=problem.log_std_label,
        create_graph=True,
    )
    distribution = trained.action_distribution(probe().expand(M, 4, OBS))
    loss = torch.sin(distribution.mode()).sum()
    gradients = torch.autograd.grad(loss, encoder.params)

    def encode(x: Tensor) -> Tensor:
        for i in range(0, 2 * l, 2):
            weight, bias = encoder.params[i][0], encoder.params[i + 1][0]
            x = torch.tanh(torch.addmm(bias, x, weight.T))
        return x

    by_hand = torch.zeros(())
    behind = Problem(encode(problem.x), problem.y, problem.inner_lr, problem.log_std_label)
    for params in own_params(fresh):
        own, _ = train_by_hand(params, behind, 2)
        by_hand = by_hand + torch.sin(forward(own, encode(probe()))).sum()
    torch.testing.assert_close(loss, by_hand, atol=1e-12, rtol=1e-10)
    for g, e in zip(gradients, torch.autograd.grad(by_hand, encoder.params), strict=True):
        torch.testing.assert_close(g, e, atol=1e-12, rtol=1e-9)


def test_without_layers_there_is_nothing_to_train() -> None:
    """With l = L the encoder is the actor and the label itself its log standard deviation."""
    problem = Problem.random()
    encoder = sample(FAMILIES["alpha_c"], 1)
    nothing = Learners([LearnerStack((), (), M)])
    trained = train_learners(
        nothing,
        encoder,
        problem.x,
        problem.y,
        InnerSGD(lr=problem.inner_lr),
        log_std_label=problem.log_std_label,
        create_graph=True,
    )
    assert trained.log_std is not None
    assert torch.equal(trained.log_std[0], problem.log_std_label)
    obs = torch.randn(M, 2, OBS, dtype=torch.float64)
    mode = trained.action_distribution(obs).mode()
    torch.testing.assert_close(mode, encoder(obs.flatten(0, 1).unsqueeze(0)).view(M, 2, OUTPUTS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be an integer from 1 to 10000, but is 0"),
        ({"steps": 10**9}, "steps must be an integer from 1 to 10000"),
        ({"steps": 1.5}, "steps must be an integer"),
        ({"steps": True}, "steps must be an integer"),
        ({"lr": 0}, "lr must be a number from 1e-12 to 1e.12, but is 0"),
        ({"lr": float("nan")}, "lr must be a number from 1e-12 to 1e.12, but is nan"),
        ({"lr": 10**400}, "lr must be a number from 1e-12 to 1e.12"),
        ({"lr": "0.1"}, "lr must be a number from 1e-12 to 1e.12, but is '0.1'"),
        ({"lr_hidden": -1}, "lr_hidden must be a number at least 0"),
        ({"momentum": 1}, r"momentum must be a number in \[0, 1\)"),
        ({"lr_decay": 0}, r"lr_decay must be a number in \(0, 1\]"),
        ({"step_size": "newton"}, "step_size must be one of constant, polyak, but is 'newton'"),
        ({"step": 3}, 'has no setting "step".*Did you mean "steps"'),
        ({"kind": "adam"}, "no inner rule 'adam'; there is sgd"),
    ],
    ids=str,
)
def test_settings_of_no_rule_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskDistillError, match=message) as caught:
        inner_rule(settings)
    assert "\n" not in str(caught.value)


def test_a_rule_is_plain_data_and_back() -> None:
    rule = InnerSGD(torch.tensor(0.25), 0.5, 3, 0.5, 0.9, "polyak")
    plain = rule.to_dict()
    assert plain == {
        "kind": "sgd",
        "lr": 0.25,
        "lr_hidden": 0.5,
        "steps": 3,
        "momentum": 0.5,
        "lr_decay": 0.9,
        "step_size": "polyak",
    }
    assert inner_rule(plain) == rule.detached() and INNER_RULES["sgd"] is InnerSGD
    assert str(rule) == "sgd(lr=0.25, lr_hidden=0.5, steps=3, momentum=0.5, lr_decay=0.9, step_size=polyak)"
    assert str(InnerSGD(lr=1)) == "sgd(lr=1)"
