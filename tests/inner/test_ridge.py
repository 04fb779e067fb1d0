"""The rule Ridge against its closed form, against descent on its loss, and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import INNER_RULES, InnerSGD, Ridge, inner_rule
from gym_taskdistill.learners import MLP, LearnerDistribution, Learners, Mixture, ModuleFamily
from gym_taskdistill.policies.trained import train_learners

OBS, OUTPUTS, M = 4, 3, 3


class Plain(nn.Module):
    """A last layer without a bias, behind a normalisation."""

    def __init__(self, obs_space: object, n_outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(OBS, 7), nn.LayerNorm(7), nn.GELU())
        self.head = nn.Linear(7, n_outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


FAMILIES: dict[str, LearnerDistribution] = {
    "mlp": MLP(width=8, last_gain=0.5),
    "padded": MLP(width=(5, 12), depth=(0, 2), last_gain=0.5, init="torch"),
    "no bias": ModuleFamily(Plain),
    "mixture": Mixture((MLP(width=6), ModuleFamily(Plain))),
}
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def sample(family: LearnerDistribution, n: int = M) -> Learners:
    fresh = family.sample(n, (OBS,), OUTPUTS, torch.Generator().manual_seed(0))
    learners = fresh.replace([p.double() for p in fresh.params])
    return learners


def rows(k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(k, n, generator=generator, dtype=torch.float64) for n in (OBS, OUTPUTS))
    return x.requires_grad_(), y.requires_grad_()


def in_float64(export: Callable[[], nn.Sequential]) -> nn.Sequential:
    torch.set_default_dtype(torch.float64)
    try:
        return export().double()
    finally:
        torch.set_default_dtype(torch.float32)


def head_of(module: nn.Module) -> nn.Linear:
    return [m for m in module.modules() if isinstance(m, nn.Linear)][-1]


def seen_by_the_head(module: nn.Module, x: Tensor) -> Tensor:
    """Return Φ, by a hook: with a column of ones where the head has a bias."""
    seen: list[Tensor] = []
    hook = head_of(module).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(x)
    hook.remove()
    phi = seen[0].detach()
    return phi if head_of(module).bias is None else torch.cat([phi, torch.ones(len(phi), 1)], dim=1)


def penalty(module: nn.Module, phi: Tensor, regularization: float) -> Tensor:
    """Return ρ for each column of Φ: 0 for the bias, beside which features are measured from their means."""
    if head_of(module).bias is None:
        return regularization * phi.square().sum() / len(phi) * torch.ones(phi.shape[1])
    rho = regularization * (phi - phi.mean(dim=0)).square().sum() / len(phi)
    return torch.cat([rho * torch.ones(phi.shape[1] - 1), torch.zeros(1)])


@families
@pytest.mark.parametrize("k", [3, 40])
@pytest.mark.parametrize("regularization", [1e-6, 0.1])
def test_the_last_layer_is_the_closed_form(
    family: LearnerDistribution, k: int, regularization: float
) -> None:
    learners, (x, y) = sample(family), rows(k)
    trained, _ = Ridge(regularization).train(learners, x, y)
    probe = torch.randn(5, OBS, dtype=torch.float64)
    for i in range(M):
        module = in_float64(lambda i=i: learners.module(i))
        phi = seen_by_the_head(module, x.detach())
        rho = penalty(module, phi, regularization)
        weights = torch.linalg.solve(phi.T @ phi + rho.diag(), phi.T @ y.detach())
        outputs = seen_by_the_head(module, probe) @ weights
        torch.testing.assert_close(trained(probe.unsqueeze(0))[i], outputs, atol=1e-5, rtol=1e-4)
        kept = in_float64(lambda i=i: trained.module(i))
        for (name, old), new in zip(module.named_parameters(), kept.parameters(), strict=True):
            assert torch.equal(old, new) == (old.shape[0] != OUTPUTS), name


def test_descent_on_the_ridge_loss_ends_there() -> None:
    learners, (x, y) = sample(MLP(width=6), 1), rows(9)
    module = in_float64(lambda: learners.module(0))
    trained, _ = Ridge(0.2).train(learners, x, y)
    phi = seen_by_the_head(module, x.detach())
    weights = torch.zeros(phi.shape[1], OUTPUTS, dtype=torch.float64)
    rho = penalty(module, phi, 0.2).unsqueeze(1)
    for _ in range(3000):
        weights -= 0.02 * (phi.T @ (phi @ weights - y.detach()) + rho * weights)
    torch.testing.assert_close(trained.params[-2][0], weights[:-1].T, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(trained.params[-1][0], weights[-1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("family", [MLP(width=5), ModuleFamily(Plain)], ids=["mlp", "module"])
@pytest.mark.parametrize("k", [3, 9])
def test_gradients_go_through_the_solution(family: LearnerDistribution, k: int) -> None:
    learners, (x, y) = sample(family, 2), rows(k)
    log_regularization = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    probe = torch.randn(1, 4, OBS, dtype=torch.float64)

    def outputs(x: Tensor, y: Tensor, log_regularization: Tensor) -> Tensor:
        trained, _ = Ridge(log_regularization.exp()).train(learners, x, y, create_graph=True)
        return trained(probe)

    assert torch.autograd.gradcheck(outputs, (x, y, log_regularization))


def test_float32_and_nearly_equal_rows_stay_finite() -> None:
    learners = MLP(width=512, activation="relu").sample(2, (OBS,), OUTPUTS, torch.Generator().manual_seed(0))
    x = (torch.ones(256, OBS) + 1e-6 * torch.randn(256, OBS)).requires_grad_()
    y = torch.randn(256, OUTPUTS)
    trained, _ = Ridge(1e-12).train(learners, x, y, create_graph=True)
    outputs = trained(x.unsqueeze(0))
    (grad,) = torch.autograd.grad(outputs.square().sum(), x)
    assert outputs.dtype == torch.float32 and outputs.isfinite().all() and grad.isfinite().all()


def test_the_log_std_reaches_its_label() -> None:
    learners, (x, y) = sample(MLP(width=5)), rows(6)
    label = torch.randn(OUTPUTS, dtype=torch.float64, requires_grad=True)
    trained = train_learners(learners, Learners(()), x, y, Ridge(), log_std_label=label, create_graph=True)
    assert trained.log_std is not None
    torch.testing.assert_close(trained.log_std, Ridge().log_std_pull(OUTPUTS) * label.expand(M, -1))
    (grad,) = torch.autograd.grad(trained.log_std.sum(), label)
    assert torch.equal(grad, torch.full_like(label, M))


def test_learners_that_end_otherwise_are_refused() -> None:
    family = ModuleFamily(lambda space, n: nn.Sequential(nn.Linear(OBS, n), nn.Tanh()))
    with pytest.raises(TaskDistillError, match=r"Sequential does not end in an nn\.Linear"):
        Ridge().train(sample(family), *rows(3))


def test_a_rule_survives_plain_data() -> None:
    rule = Ridge(torch.tensor(0.25))
    assert rule.to_dict() == {"kind": "ridge", "regularization": 0.25}
    assert inner_rule(rule.to_dict()) == rule.detached() == Ridge(0.25)
    assert str(rule) == "ridge(regularization=0.25)" and rule.steps == 1
    assert {"sgd": InnerSGD, "ridge": Ridge} == INNER_RULES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"regularization": 0}, "regularization must be a number from 1e-12 to 1e.12"),
        ({"regularization": "1e-3"}, "regularization must be a number from 1e-12 to 1e.12"),
        (
            {"regularisation": 1.0},
            r'"ridge" has no setting "regularisation".*Did you mean "regularization"\?',
        ),
        ({"steps": 3}, 'no setting "steps"'),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(TaskDistillError, match=message):
        inner_rule({"kind": "ridge", **settings})
