"""Training speed of PPMO beside Stable-Baselines3's PPO, and where a meta-epoch's time goes."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from benchmarks import Report, at_least, best_seconds
from gym_taskdistill import PPMO, recipes

#: The recipe for two axes, with the env of one, which is SB3's CartPole-v1.
RECIPE = replace(recipes.load("cartpole"), env_kwargs={"n": 1})

#: Columns of envs and minibatch size. The inner step costs the same for a small minibatch as for a large one,
#: SB3's updates do not, so the ratio grows with the minibatch: the recipe's own setting, and a large one.
SMALL, LARGE = (RECIPE.n_envs, RECIPE.ppmo["batch_size"]), (64, 4096)
ROUNDS, MIN_STEPS = 5, 16_384


def rollout_size(setting: tuple[int, int]) -> int:
    """Env steps of a meta-epoch."""
    return setting[0] * int(RECIPE.ppmo["n_steps"])


def ppmo(setting: tuple[int, int]) -> PPMO:
    """Make PPMO as the cart-pole recipe says, for a single axis, but for the setting."""
    n_envs, batch_size = setting
    kwargs = {**RECIPE.ppmo_kwargs(), "batch_size": batch_size}
    return PPMO(env=RECIPE.task.make_vec_env(n_envs), seed=0, device="cpu", **kwargs)


def sb3_ppo(env: VecEnv, setting: tuple[int, int]) -> PPO:
    """Make SB3's PPO with the same rollouts, minibatches and passes; its nets are 64-64 tanh too."""
    same = {name: RECIPE.ppmo[name] for name in ("n_steps", "n_epochs", "ent_coef")}
    return PPO("MlpPolicy", env, batch_size=setting[1], seed=0, device="cpu", **same)


def learner(model: OnPolicyAlgorithm) -> Callable[[], None]:
    """Return a function that trains for some meta-epochs, the same number of env steps for all."""

    def run() -> None:
        model.learn(MIN_STEPS, reset_num_timesteps=False)

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
    model = ppmo(SMALL)
    learner(model)
    watch = Stopwatch()
    parts = [
        (model, "collect_rollouts", "rollout: policy"),
        (model.env, "step", "rollout: env"),
        (model.rollout_buffer, "add_step", "rollout: buffer"),
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
            meta_epochs * rollout_size(SMALL), reset_num_timesteps=False
        )
    finally:
        for one in patches:
            one.stop()
    del watch.seconds["rest"]
    return {part: seconds / meta_epochs for part, seconds in watch.seconds.items()}


def measure() -> Report:
    """Measure env steps per CPU second of training, and profile a meta-epoch."""
    rows = []
    for setting, target in ((LARGE, 2.0), (SMALL, None)):
        n_envs, batch_size = setting
        seconds = best_seconds(
            learner(ppmo(setting)),
            learner(sb3_ppo(make_vec_env("CartPole-v1", n_envs=n_envs), setting)),
            learner(sb3_ppo(RECIPE.task.make_vec_env(n_envs), setting)),
            rounds=ROUNDS,
        )
        ours, theirs, theirs_here = (MIN_STEPS / s for s in seconds)
        name = f"PPMO, {n_envs} envs, batch {batch_size}"
        rows += [
            at_least(f"{name} / SB3 PPO, DummyVecEnv", ours, theirs, target, "steps/s"),
            at_least(f"{name} / SB3 PPO, our vector env", ours, theirs_here, unit="steps/s"),
        ]
    parts = profile()
    total = sum(parts.values())
    note = [f"A meta-epoch of PPMO, {rollout_size(SMALL)} env steps, takes {1000 * total:.0f} ms:"]
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        note.append(f"  {part:<52}{1000 * seconds:>7.1f} ms {seconds / total:>5.0%}")
    return Report(rows, ["\n".join(note)])
