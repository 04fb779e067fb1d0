"""Traits of an architecture: how its fresh networks fare once a dataset has trained them.

A good dataset gives all architectures the highest return. Other traits tell them apart then.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from gym_taskdistill import seeds
from gym_taskdistill.dataset.dataset import DistilledDataset
from gym_taskdistill.distill.experts import Recording
from gym_taskdistill.errors import DatasetError
from gym_taskdistill.inner.rules import InnerSGD
from gym_taskdistill.policies.action_distributions import head
from gym_taskdistill.policies.evaluation import STEP_CAP, Act, acting, play
from gym_taskdistill.policies.trained import TrainedLearners, train_fresh_learners
from gym_taskdistill.tasks.spaces import random_actions
from gym_taskdistill.uses.architectures import Architecture

#: Traits, and whether more of them is better.
TRAITS = {"return": True, "noisy_return": True, "area": True, "distance": False, "loss": False}

#: States that all agents answer at once.
CHUNK = 256

_NOT_FINITE = "The agents, trained on the dataset, say numbers that are not finite."

#: Points of the curve over the inner steps.
CURVE_POINTS = 5


@dataclass(frozen=True)
class Examination:
    """What all architectures of a search are put to.

    Attributes:
        dataset: What trains them.
        states: What the dataset's own learners would do at states that they visit.
        agents: Fresh agents of each architecture.
        episodes: Full episodes for each.
        noise: Share of random actions; of continuous actions the standard deviation of the noise, in halves
            of their range.
        deterministic: Whether agents take the mode of their policies.
        seed: Seed of the search: all architectures have the same envs, and draw from the same seed.
    """

    dataset: DistilledDataset
    states: Recording
    agents: int
    episodes: int
    noise: float
    deterministic: bool
    seed: int

    def traits(self, architecture: Architecture) -> tuple[dict[str, float], np.ndarray]:
        """Train fresh agents of an architecture and examine them.

        Returns:
            The traits by their names, without ``area`` where the rule takes one step; and the mean return
            of each agent, ``(agents,)``.

        Raises:
            DatasetError: Training gave numbers that are not finite, or agents that say such.
        """
        trained = self._trained(architecture, self.dataset)
        task = self.dataset.task
        columns = self.agents * (self.episodes if task.is_vectorised else 1)
        with contextlib.closing(task.make_vec_env(columns, step_cap=STEP_CAP)) as env:
            returns = self._returns(trained, env)
            found = {
                "return": float(returns.mean()),
                "noisy_return": float(self._returns(trained, env, self._noisy).mean()),
            }
            curve = [self._returns(self._trained(architecture, one), env).mean() for one in self._shorter()]
            if curve:
                found["area"] = float(np.mean([*curve, returns.mean()]))
        found["distance"] = self._distance(trained)
        found["loss"] = self._loss(trained)
        if not np.isfinite(list(found.values())).all():
            raise DatasetError(_NOT_FINITE)
        return found, returns

    def _trained(self, architecture: Architecture, dataset: DistilledDataset) -> TrainedLearners:
        generator = torch.Generator(dataset.x.device).manual_seed(seeds.search(self.seed, 0))
        return train_fresh_learners(dataset, self.agents, generator, architecture.learners)

    def _shorter(self) -> list[DistilledDataset]:
        """Return the dataset with fewer steps, evenly spread up to all of them, without these."""
        rule = self.dataset.rule
        if not isinstance(rule, InnerSGD):
            return []
        points = {math.ceil(rule.steps * i / CURVE_POINTS) for i in range(1, CURVE_POINTS)}
        return [self.dataset.replace(rule=replace(rule, steps=n)) for n in sorted(points) if n < rule.steps]

    def _returns(
        self, trained: TrainedLearners, env: VecEnv, change: Callable[[Act], Act] | None = None
    ) -> np.ndarray:
        """Return each agent's mean return."""
        seed = seeds.search(self.seed, 1)
        agents = acting(trained, self.dataset, self.deterministic, torch.Generator().manual_seed(seed))

        def act(obs: np.ndarray) -> np.ndarray:
            actions = agents(obs)
            if not np.isfinite(actions).all():
                raise DatasetError(_NOT_FINITE)
            return actions

        env.seed(seed)
        per_column = self.agents * self.episodes // env.num_envs
        returns, _, _ = play(act if change is None else change(act), env, per_column)
        means: np.ndarray = returns.reshape(self.agents, self.episodes).mean(axis=1)
        return means

    def _noisy(self, act: Act) -> Act:
        """Return agents whose actions are disturbed."""
        space = self.dataset.task.flat_action_space
        rng = np.random.default_rng(seeds.search(self.seed, 2))

        def acts(obs: np.ndarray) -> np.ndarray:
            actions = np.array(act(obs))
            if isinstance(space, spaces.Box):
                half = np.where(np.isfinite(space.high - space.low), (space.high - space.low) / 2, 1.0)
                return actions + self.noise * half * rng.standard_normal(actions.shape)
            disturbed = rng.random(len(actions)) < self.noise
            actions[disturbed] = random_actions(space, rng, (int(disturbed.sum()),))
            return actions

        return acts

    def _distance(self, trained: TrainedLearners) -> float:
        """Return how far agents' most likely actions are from those of the dataset's own learners.

        Of continuous actions it is the mean squared distance of means within the box, of discrete ones the
        share of states at which another action is the most likely.
        """
        dataset = self.dataset
        observations = torch.as_tensor(self.states.observations, dtype=torch.float32)
        seen = dataset.normalize(observations.reshape(-1, *dataset.obs_shape)).unsqueeze(0)
        with torch.no_grad():
            parts = seen.expand(self.agents, *seen.shape[1:]).split(CHUNK, dim=1)
            mode = torch.cat([trained.action_distribution(part).mode() for part in parts], dim=1)
        wanted: Any = torch.as_tensor(self.states.targets)
        space = dataset.spaces[1]
        if isinstance(space, spaces.Box):
            low, high = (
                torch.as_tensor(end.reshape(-1), dtype=torch.float32) for end in (space.low, space.high)
            )
            return float((mode.clamp(low, high) - wanted.clamp(low, high)).square().mean())
        return float((mode != head(space)(wanted, None).mode()).float().mean())

    def _loss(self, trained: TrainedLearners) -> float:
        """Return the mean squared error on the rows, over agents."""
        x: Tensor = self.dataset.x
        with torch.no_grad():
            outputs = trained.learners(x.expand(self.agents, *x.shape))
        return float((outputs - self.dataset.y).square().mean())
