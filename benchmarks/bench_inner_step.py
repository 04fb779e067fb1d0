"""Speed of training fresh agents on a dataset, and of differentiating through that training."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks import Report, Row, best_seconds, within
from gym_taskdistill import DistilledDataset, DistilledPolicy, zoo
from gym_taskdistill.dataset.card import Card, space_to_dict
from gym_taskdistill.inner import gradients
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.learners import ALPHA_A, ALPHA_C, LearnerDistribution, Learners, learner_distribution
from gym_taskdistill.policies.trained import train_fresh_learners
from gym_taskdistill.tasks.task import Task

N_LEARNERS, N_OBS = 8, 128
AGENT_LIMIT_MS, CNN_LIMIT_MS = 20, 100

#: Inner learning rate of a dataset of one step, as on cart-pole.
ONE_STEP_LR = 4.0


def dataset(k: int = 3) -> DistilledDataset:
    """Make a dataset of the shapes that 2D cart-pole has in the zoo, with random values."""
    task = Task("CartPoleND-v0", {"n": 2})
    generator = torch.Generator().manual_seed(0)
    card = Card(
        env_id=task.env_id,
        env_kwargs=dict(task.env_kwargs),
        observation_space=space_to_dict(task.observation_space),
        action_space=space_to_dict(task.action_space),
        learners=ALPHA_C.spec(),
    )
    x, y = (torch.randn(k, size, generator=generator) for size in (8, 4))
    return DistilledDataset(x=x, y=y, rule=InnerSGD(lr=ONE_STEP_LR), card=card)


def pixel_dataset() -> DistilledDataset:
    """Make a dataset of the shapes of Centipede, fully distilled, with random values."""
    generator = torch.Generator().manual_seed(0)
    card = Card(
        env_id="CentipedeNoFrameskip-v4",
        observation_space={"type": "Box", "shape": [4, 84, 84], "dtype": "uint8"},
        action_space={"type": "Discrete", "n": 18},
        learners=ALPHA_A.spec(),
    )
    k = DistilledDataset.k_min(18)
    x, y = torch.randn(k, 4, 84, 84, generator=generator), torch.randn(k, 18, generator=generator)
    return DistilledDataset(x=x, y=y, rule=InnerSGD(lr=0.1), card=card)


class MetaGradient:
    """The gradient of an outer loss with respect to a dataset, through the steps of M learners."""

    def __init__(self, learners: LearnerDistribution = ALPHA_C, inner_steps: int = 1, k: int = 3) -> None:
        self.inner_steps = inner_steps
        start = dataset(k)
        generator = torch.Generator().manual_seed(1)
        self.x = start.x.clone().requires_grad_()
        self.y = start.y.clone().requires_grad_()
        self.log_inner_lr = torch.tensor(
            math.log(ONE_STEP_LR if inner_steps == 1 else 0.1), requires_grad=True
        )
        self.fresh = learners.sample(N_LEARNERS, (8,), 4, generator)
        self.obs = torch.randn(N_LEARNERS, N_OBS, 8, generator=generator)

    def stacked(self) -> tuple[Tensor, ...]:
        """All learners at once through TorchOpt, as PPMO does."""
        rule = InnerSGD(lr=self.log_inner_lr.exp(), steps=self.inner_steps)
        trained, _ = rule.train(self.fresh, self.x, self.y, create_graph=True)
        return self._grad(trained(self.obs).square().mean(dim=(1, 2)).sum())

    def by_autograd(self) -> tuple[Tensor, ...]:
        """The same with autograd's own derivative of the inner gradient."""
        with patch.object(gradients, "_is_perceptron", lambda stack: False):
            return self.stacked()

    def looped(self) -> tuple[Tensor, ...]:
        """One learner after the other in plain PyTorch."""
        loss = torch.zeros(())
        inner_lr = self.log_inner_lr.exp()
        for i in range(N_LEARNERS):
            params = [p[i].detach().requires_grad_() for p in self.fresh.params]
            inner_loss = (_mlp(params, self.x) - self.y).square().mean()
            grads = torch.autograd.grad(inner_loss, params, create_graph=True)
            trained = [p - inner_lr * g for p, g in zip(params, grads, strict=True)]
            loss = loss + _mlp(trained, self.obs[i]).square().mean()
        return self._grad(loss)

    def _grad(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, (self.x, self.y, self.log_inner_lr))


class TailMetaGradient:
    """The meta-gradient of the Nature CNN's dense layers, behind an encoder of three layers."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.fresh = ALPHA_A.sample(N_LEARNERS, (4, 84, 84), 6, generator, slice(3, None))
        n_features = self.fresh.params[0][0, 0].numel()
        self.x, self.y = (torch.randn(4, size, generator=generator) for size in (n_features, 6))
        self.features = torch.randn(N_LEARNERS, 32, n_features, generator=generator)

    def all_layers(self) -> tuple[Tensor, ...]:
        """Train both layers."""
        return self._grad(1.0)

    def last_layer(self) -> tuple[Tensor, ...]:
        """Train the last one alone (``lr_hidden=0``)."""
        return self._grad(0.0)

    def _grad(self, lr_hidden: float) -> tuple[Tensor, ...]:
        inputs = [t.requires_grad_() for t in (self.x, self.y, self.features)]
        rule = InnerSGD(lr=1.0, lr_hidden=lr_hidden)
        trained, _ = rule.train(self.fresh, self.x, self.y, create_graph=True)
        return torch.autograd.grad(trained(self.features).square().mean(), inputs)


def _mlp(params: list[Tensor], x: Tensor) -> Tensor:
    last = len(params) - 2
    for i in range(0, len(params), 2):
        x = torch.nn.functional.linear(x, params[i], params[i + 1])
        x = x if i == last else x.tanh()
    return x


def _agent_row(name: str, make: Callable[[], DistilledPolicy], limit_ms: float = AGENT_LIMIT_MS) -> Row:
    seconds = best_seconds(make, rounds=20, clock=time.perf_counter)[0]
    return within(name, 1000 * seconds, limit_ms, "ms", ".1f")


def print_first_agent_ms() -> None:
    """Print the time of making one agent; see `_first_agent_ms`."""
    torch.set_num_threads(1)
    data = dataset()
    start = time.perf_counter()
    DistilledPolicy(data)
    print(1000 * (time.perf_counter() - start))


def _first_agent_ms() -> float:
    """Time the first agent in a fresh process: it pays for what torch sets up on first use."""
    code = f"import {__name__} as module; module.print_first_agent_ms()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


def measure() -> Report:
    """Measure the training of fresh agents and the meta-gradient."""
    data = dataset()

    def thousand() -> Learners:
        return train_fresh_learners(data, 1000, torch.Generator().manual_seed(0)).learners

    thousand_s = best_seconds(thousand, rounds=3, clock=time.perf_counter)[0]
    rows = [
        within("sample and train 1000 agents, 2D k=3", thousand_s, 1, "s"),
        within("first agent of a process", _first_agent_ms(), AGENT_LIMIT_MS, "ms", ".1f"),
        _agent_row("one agent, DistilledPolicy(dataset)", lambda: DistilledPolicy(data)),
    ]
    pixels = pixel_dataset()
    name = "one agent, the Nature CNN on Centipede's 10 rows"
    rows.append(_agent_row(name, lambda: DistilledPolicy(pixels), CNN_LIMIT_MS))
    entries = zoo.entries()
    if entries:
        name = entries[0].name
        row = _agent_row(f"one agent, from_zoo({name})", lambda: DistilledPolicy.from_zoo(name))
        rows.append(row)
    meta = MetaGradient()
    torch.testing.assert_close(meta.stacked(), meta.looped(), rtol=1e-3, atol=1e-5)
    stacked, looped = (1000 * s for s in best_seconds(meta.stacked, meta.looped, rounds=30))
    ratio = looped / stacked
    rows.append(
        Row(
            f"meta-gradient, {N_LEARNERS} learners / plain loop (speed-up)",
            f"{stacked:.1f} ms",
            f"{looped:.1f} ms",
            ratio,
            "≥ 1",
            ratio >= 1,
        )
    )
    few = MetaGradient(learner_distribution("universal"), inner_steps=10, k=64)
    written, autograd = (1000 * s for s in best_seconds(few.stacked, few.by_autograd, rounds=10))
    ratio = autograd / written
    name = "meta-gradient, ten steps, mixed learners / autograd (speed-up)"
    rows.append(Row(name, f"{written:.1f} ms", f"{autograd:.1f} ms", ratio, "≥ 1", ratio >= 1))
    tail = TailMetaGradient()
    last, whole = (1000 * s for s in best_seconds(tail.last_layer, tail.all_layers, rounds=5))
    name = "meta-gradient, dense layers of the Nature CNN, last alone / both"
    rows.append(Row(name, f"{last:.1f} ms", f"{whole:.1f} ms", whole / last))
    notes = [] if entries else ["The zoo is empty: DistilledPolicy.from_zoo was not measured."]
    return Report(rows, notes)
