"""The outer loop learns for every inner rule and any module, and what it learns is what agents get."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from torch import Tensor, nn

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.experts import as_expert, record
from gym_taskdistill.distill.imitation import Imitation
from gym_taskdistill.distill.outer import OuterLoop
from gym_taskdistill.distill.ppmo import PPMO
from gym_taskdistill.errors import TaskDistillError
from gym_taskdistill.inner.rules import InnerRule, InnerSGD, Ridge
from gym_taskdistill.learners import MLP, LearnerDistribution, Mixture, ModuleFamily
from gym_taskdistill.policies.evaluation import evaluate
from gym_taskdistill.policies.policy import DistilledPolicy
from gym_taskdistill.tasks.task import Task

OBS, ACT = spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (2,))


class Residual(nn.Module):
    def __init__(self, obs_space: spaces.Box, n_outputs: int, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(obs_space.shape[0], width), nn.LayerNorm(width))
        self.block = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.head = nn.Linear(width, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(x + self.block(x))


def loop(learners: LearnerDistribution, inner: InnerRule, **settings: Any) -> OuterLoop:
    generator = torch.Generator().manual_seed(0)
    made = OuterLoop(learners, OBS, ACT, generator, n_learners=3, k=5, inner=inner, **settings)
    made.optimise_by(1e-2, {"inner_lr": 1e-2})
    made.optimizer.set_rates(1.0)
    return made


CASES: dict[str, tuple[LearnerDistribution, InnerRule]] = {
    "mlp, ridge": (MLP(width=16, activation="relu"), Ridge(0.1)),
    "module, sgd": (ModuleFamily(Residual), InnerSGD(lr=0.05, steps=2)),
    "mixture, ridge": (Mixture((MLP(width=(8, 20)), ModuleFamily(Residual))), Ridge(0.1)),
}
cases = pytest.mark.parametrize(("learners", "inner"), CASES.values(), ids=CASES)


@cases
def test_rows_labels_and_rate_learn_and_agents_get_them(
    learners: LearnerDistribution, inner: InnerRule
) -> None:
    learned = loop(learners, inner)
    obs = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    target = torch.stack([obs[:, 0], -obs[:, 1]], dim=1)
    before = [p.detach().clone() for p in (learned.x, learned.y, learned.log_inner_lr)]
    losses = []
    for _ in range(60):
        learned.draw()
        actions = learned.trained(create_graph=True).act(learned.features(obs.expand(3, 40, 3)))
        loss = (actions.mode() - target).square().mean() + (actions.log_std + 1).square().mean()
        losses.append(loss.item())
        learned.optimizer.descend(loss)
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    for old, new in zip(before, (learned.x, learned.y, learned.log_inner_lr), strict=True):
        assert not torch.equal(old, new)
    rate = getattr(learned.rule.detached(), inner.rate)
    assert rate == pytest.approx(math.exp(learned.log_inner_lr.item())) != getattr(inner, inner.rate)
    assert learned.log_std is not None
    policy = learned.trained(create_graph=False)
    assert policy.log_std is not None
    torch.testing.assert_close(policy.log_std, learned.log_std.detach().expand(3, -1))


def test_draws_of_modules_follow_the_loops_generator() -> None:
    torch.manual_seed(5)
    first = loop(ModuleFamily(Residual), InnerSGD(lr=0.1))
    torch.manual_seed(6)
    again = loop(ModuleFamily(Residual), InnerSGD(lr=0.1))
    for one in (first, again):
        one.draw()
    assert all(torch.equal(a, b) for a, b in zip(first.fresh.params, again.fresh.params, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("inner", [{"kind": "ridge", "regularization": 1e-2}, {"lr": 0.1, "steps": 2}])
def test_ppmo_distils_over_modules_and_the_dataset_is_complete(inner: dict[str, Any], tmp_path: Path) -> None:
    env = make_vec_env(lambda: gym.make("Pendulum-v1"), n_envs=4)
    settings: dict[str, Any] = {
        "k": 4, "n_learners": 2, "n_steps": 16, "batch_size": 32, "seed": 0, "inner": inner, "device": "cpu"
    }  # fmt: skip
    model = PPMO(Residual, env, **settings)
    model.learn(128)
    path = model.dataset().save(tmp_path / "dataset")
    data = DistilledDataset.load(path)
    assert data.rule == model.loop.rule.detached() and data == model.dataset()
    again = PPMO(Residual, env, **settings)
    again.learn(128)
    assert again.dataset().digest == data.digest  # whatever the global seeds
    assert np.isfinite(evaluate(data, 2, 1, seed=3).mean)  # the function is known in this process
    warm = PPMO(Residual, env, **settings)
    warm.load_dataset(data)
    assert warm.dataset().rule == data.rule and torch.equal(warm.dataset().x, data.x)
    torch.testing.assert_close(warm.dataset().log_std, data.log_std)
    other = PPMO(Residual, env, **{**settings, "inner": {"kind": "sgd" if "kind" in inner else "ridge"}})
    with pytest.raises(TaskDistillError, match="give it an inner rule of the kind"):
        other.load_dataset(data)


@pytest.mark.slow
def test_imitation_by_ridge_regression() -> None:
    task = Task("CartPoleND-v0", {"n": 1})
    expert = DistilledPolicy.from_zoo("CartPoleND-v0", n=1, seed=0)
    recording = record(as_expert(expert), task.make_vec_env(8, seed=0), 2_000, noise=0.2)
    imitation = Imitation(
        task, Mixture((MLP(width=48, activation="gelu", init="torch"), ModuleFamily(Residual))), k=16,
        n_learners=4, inner={"kind": "ridge"}, learning_rate=2e-2, start={"x_std": 0.3}, seed=0, device="cpu",
    )  # fmt: skip
    imitation.update(recording, 150, 128)
    assert evaluate(imitation.dataset(), 6, 2, seed=5, env=task).mean > 200  # random: about 20


def test_settings_that_do_not_fit_a_ridge_are_refused() -> None:
    with pytest.raises(TaskDistillError, match=r"lr_hidden is above 0, not ridge\(regularization=0.1\)"):
        loop(MLP(), Ridge(0.1), learn_lr_hidden=True)
    with pytest.raises(TaskDistillError, match="does not end in an nn.Linear"):
        loop(ModuleFamily(lambda s, n: nn.Sequential(nn.Linear(3, n), nn.Tanh())), Ridge())


def test_learners_that_act_follow_every_change() -> None:
    made = loop(MLP(width=16), InnerSGD(lr=0.05))
    obs = torch.randn(6, *made.obs_shape)

    def actions() -> Tensor:
        made.acting.manual_seed(0)
        return made.act(obs)

    def as_trained_now() -> Tensor:
        made.acting.manual_seed(0)
        acting = made.trained(create_graph=False).act(made.see(obs).unflatten(0, (3, 2)))
        return acting.sample(made.acting).flatten(0, 1)

    state = copy.deepcopy(made.state())
    changes: list[Callable[[], object]] = [
        lambda: None,
        made.draw,
        lambda: made.optimizer.descend(made.y.square().sum() + made.x.sum()),
        lambda: made.load_state(state),
    ]
    for change in changes:
        before = made._acted
        change()
        torch.testing.assert_close(actions(), as_trained_now(), rtol=0, atol=0)
        assert made._acted is not before
    acted = made._acted
    actions()
    assert made._acted is acted
