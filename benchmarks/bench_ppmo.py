"""Training speed of PPMO beside Stable-Baselines3's PPO, and where a meta-epoch's time goes."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from benchmarks import Report, at_least, best_seconds
from gym_taskdistill import PPMO, recipes

RECIPE = recipes.load("cartpole", {"n": 1})
ROLLOUT = RECIPE.n_envs * RECIPE.ppmo["n_steps"]
ROUNDS, META_EPOCHS = 5, 4


def ppmo() -> PPMO:
    """Make PPMO as the cart-pole recipe says, for a single axis."""
    env = RECIPE.task.make_vec_env(RECIPE.n_envs)
    return PPMO(env=env, seed=0, device="cpu", **RECIPE.ppmo_kwargs())


def sb3_ppo(env: VecEnv) -> PPO:
    """Make SB3's PPO with the same minibatches and passes; its nets are 64-64 tanh too."""
    same = {name: RECIPE.ppmo[name] for name in ("n_steps", "batch_size", "n_epochs")}
    return PPO("MlpPolicy", env, ent_coef=RECIPE.ppmo["ent_coef"], seed=0, device="cpu", **same)


def learner(model: OnPolicyAlgorithm) -> Callable[[], None]:
    """Return a function that trains for some meta-epochs."""

    def run() -> None:
        model.learn(META_EPOCHS * ROLLOUT, reset_num_timesteps=False)

    run()  # the first call allocates
    return run


class Stopwatch:
    """Splits time among parts of a program; of nested parts, the innermost gets it."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running = ["rest"]
        self._since = time.process_time()

    def wrap(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """Return a function that does the same and counts its time to ``part``."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._count()
            self._running.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._count()
                self._running.pop()

        return timed

    def _count(self) -> None:
        now = time.process_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now


def profile(meta_epochs: int = 20) -> dict[str, float]:
    """Measure the CPU seconds that each part of a meta-epoch takes, on average."""
    model = ppmo()
    learner(model)
    watch = Stopwatch()
    parts = [
        (model, "collect_rollouts", "rollout: policy"),
        (model.env, "step", "rollout: env"),
        (model.rollout_buffer, "add", "rollout: buffer"),
        (model.rollout_buffer, "compute_returns_and_advantage", "rollout: buffer"),
        (model.policy, "sample_learners", "sampling fresh learners"),
        (model.policy, "train_learners", "inner step, forward with graph"),
        (model.policy, "predict_values", "critic, forward"),
        (model, "loss", "outer loss, forward"),
        (torch.Tensor, "backward", "backward (dataset through the inner step, critic)"),
        (model.optimizer, "step", "optimisers"),
        (model.critic_optimizer, "step", "optimisers"),
    ]
    patches = [
        patch.object(owner, name, watch.wrap(getattr(owner, name), part)) for owner, name, part in parts
    ]
    for one in patches:
        one.start()
    try:
        watch.wrap(model.learn, "rest: minibatches, clipping, log")(
            meta_epochs * ROLLOUT, reset_num_timesteps=False
        )
    finally:
        for one in patches:
            one.stop()
    del watch.seconds["rest"]
    return {part: seconds / meta_epochs for part, seconds in watch.seconds.items()}


def measure() -> Report:
    """Measure env steps per CPU second of training, and profile a meta-epoch."""
    seconds = best_seconds(
        learner(ppmo()),
        learner(sb3_ppo(make_vec_env("CartPole-v1", n_envs=RECIPE.n_envs))),
        learner(sb3_ppo(RECIPE.task.make_vec_env(RECIPE.n_envs))),
        rounds=ROUNDS,
    )
    ours, theirs, theirs_here = (META_EPOCHS * ROLLOUT / s for s in seconds)
    name = f"PPMO training, {RECIPE.ppmo['n_learners']} learners"
    rows = [
        at_least(f"{name} / SB3 PPO, DummyVecEnv", ours, theirs, 2, "steps/s"),
        at_least(f"{name} / SB3 PPO, our vector env", ours, theirs_here, unit="steps/s"),
    ]
    parts = profile()
    total = sum(parts.values())
    note = [f"A meta-epoch of PPMO, {ROLLOUT} env steps, takes {1000 * total:.0f} ms:"]
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        note.append(f"  {part:<52}{1000 * seconds:>7.1f} ms {seconds / total:>5.0%}")
    return Report(rows, ["\n".join(note)])
