"""Rows found by an evolution strategy, CMA-ES, in place of the meta-gradient."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.errors import TaskDistillError, import_extra
from gym_taskdistill.learners import Learners, learner_distribution
from gym_taskdistill.policies.action_distributions import head
from gym_taskdistill.policies.evaluation import STEP_CAP, acting, play
from gym_taskdistill.policies.trained import TrainedLearners, load_encoder, train_learners
from gym_taskdistill.uses.rivals import with_rule

#: Fresh learners that each candidate trains, one episode each.
N_LEARNERS = 4

#: Numbers up to which the strategy learns how they vary together, and beyond which each by itself.
MAX_FULL = 300

#: Standard deviation of the first candidates around the start.
SIGMA = 0.5


def library() -> Any:
    """Return the library of the strategy, so that who needs it is told before work begins.

    Raises:
        TaskDistillError: cma is not installed.
    """
    return import_extra("cma", "baselines", "Evolved rows (cma-es)")


def evolve(
    dataset: DistilledDataset, env_steps: int, seed: int, progress: Callable[[int], object] | None = None
) -> list[DistilledDataset]:
    """Search rows, labels and the rate of the inner rule by CMA-ES, as HaDES does by other strategies.

    A candidate is scored by the mean return of `N_LEARNERS` fresh learners, trained on its rows, in an
    episode each. The learners are drawn anew in each generation, the same for all of its candidates. The
    search starts as PPMO does, from rows and labels of the standard normal; the observation view, the
    learned rate of the inner rule and the noise of the actions are given to it, as the dataset has them.

    Args:
        dataset: Whose k, learners, inner rule, view and encoder are used.
        env_steps: Env steps after which the search ends; whole generations are played.
        seed: Seed of the search.
        progress: Called with the env steps of each generation.

    Returns:
        Two datasets: the centre of the last candidates, and the best candidate that was met.

    Raises:
        TaskDistillError: The library cma is not installed, or there is no step.
    """
    cma = library()
    if env_steps < 1:
        raise TaskDistillError(f"CMA-ES needs at least 1 env step, not {env_steps}.")
    generator = torch.Generator().manual_seed(seed)
    shape = dataset.k * (math.prod(dataset.obs_shape) + dataset.n_outputs)
    start = torch.randn(shape, generator=generator).numpy().astype(np.float64)
    options = {
        "seed": seed % 2**31 + 1,  # 0 would mean the clock
        "verbose": -9,
        "verb_log": 0,
        "CMA_diagonal": shape > MAX_FULL,
        # The budget alone ends the search.
        "tolfun": 0,
        "tolfunhist": 0,
        "tolx": 0,
        "tolstagnation": 10**9,
        "tolflatfitness": 10**9,
    }
    strategy: Any = cma.CMAEvolutionStrategy([*start, 0.0], SIGMA, options)
    # The strategy is told the best of few games, which luck chooses too; its centre is the safer answer.
    best: tuple[float, np.ndarray] = -math.inf, strategy.mean
    used = 0
    with contextlib.closing(
        dataset.task.make_vec_env(strategy.popsize * N_LEARNERS, backend="auto", step_cap=STEP_CAP)
    ) as env:
        env.seed(seed)
        while used < env_steps:
            vectors = strategy.ask()
            agents = _trained([candidate(dataset, vector) for vector in vectors], generator)
            returns, lengths, _ = play(acting(agents, dataset, False, generator), env, 1)
            scores = returns.reshape(len(vectors), -1).mean(axis=1)
            strategy.tell(vectors, (-scores).tolist())
            if scores.max() > best[0]:
                best = float(scores.max()), vectors[int(scores.argmax())]
            steps = int(lengths.sum())
            used += steps
            if progress is not None:
                progress(steps)
    return [candidate(dataset, vector) for vector in (strategy.mean, best[1])]


def candidate(dataset: DistilledDataset, vector: np.ndarray) -> DistilledDataset:
    """Return a dataset with other rows, labels and rate.

    Args:
        dataset: All else.
        vector: Rows in units of the view's scale, labels, and the logarithm of the factor on the rate.
    """
    k, n = dataset.k, dataset.k * math.prod(dataset.obs_shape)
    numbers = torch.as_tensor(np.asarray(vector[:-1]), dtype=torch.float32)
    x, y = numbers[:n].view(k, *dataset.obs_shape), numbers[n:].view(k, dataset.n_outputs)
    if dataset.obs_scale is not None:
        x = x * dataset.obs_scale
    if dataset.obs_shift is not None:
        x = x + dataset.obs_shift
    rule = dataset.rule
    # A factor that no learner needs would only overflow.
    rate = getattr(rule, rule.rate) * math.exp(float(np.clip(vector[-1], -10, 10)))
    return with_rule(dataset, replace(rule, **{rule.rate: rate})).replace(x=x, y=y)


def _trained(candidates: Sequence[DistilledDataset], generator: torch.Generator) -> TrainedLearners:
    """Train the same fresh learners on each candidate, and return all of them behind one another."""
    first = candidates[0]
    distribution = learner_distribution(first.card.learners)
    layers = slice(first.encoder_layers, None)
    fresh = distribution.sample(N_LEARNERS, first.obs_shape, first.n_outputs, generator, layers)
    encoder, own_head = load_encoder(first, distribution), head(first.spaces[1])
    trained = [
        train_learners(fresh, encoder, d.x, d.y, d.rule, log_std_label=d.log_std, head=own_head)
        for d in candidates
    ]
    stds = [agents.log_std for agents in trained if agents.log_std is not None]
    return TrainedLearners(
        Learners.join([agents.learners for agents in trained]),
        encoder,
        torch.cat(stds) if stds else None,
        own_head,
    )
