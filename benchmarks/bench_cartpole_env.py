"""Speed of CartPoleND side by side with Gymnasium's cart-poles, measured in one run.

    python benchmarks/bench_cartpole_env.py

Every pair is timed in turns and each side keeps its best round, so that a busy machine slows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

import gym_taskdistill.envs  # noqa: F401  (registers CartPoleND-v0)

ROUNDS = 7


def stepper(envs: gym.vector.VectorEnv[Any, Any, Any], steps: int) -> Callable[[], int]:
    """Return a function that takes `steps` random vector steps and returns the env steps taken."""
    envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = [envs.action_space.sample() for _ in range(steps)]

    def run() -> int:
        for action in actions:
            envs.step(action)
        return steps * envs.num_envs

    return run


def single_stepper(env: gym.Env[Any, Any], steps: int) -> Callable[[], int]:
    """Return a function that takes `steps` random steps in one env, resetting at episode ends."""
    env.reset(seed=0)
    actions = np.random.default_rng(0).integers(env.action_space.n, size=steps)  # type: ignore[attr-defined]

    def run() -> int:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return steps

    return run


def rates(*runs: Callable[[], int], rounds: int = ROUNDS) -> list[float]:
    """Return the best env steps per second of every function, timed in turns."""
    best = [0.0] * len(runs)
    for _ in range(rounds):
        for i, run in enumerate(runs):
            start = time.perf_counter()
            taken = run()
            best[i] = max(best[i], taken / (time.perf_counter() - start))
    return best


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Measure all pairs.

    Args:
        rounds: Timed rounds of every pair; the best counts.

    Returns:
        Ratios of env steps per second, ours over theirs, by name; and for `n` axes the time of a
        step per axis, relative to one axis (1 is linear, below 1 is better).
    """
    ratios = {}
    for num_envs in (8, 64, 1024, 4096):
        steps = max(100, 200_000 // (num_envs + 200))
        ours, theirs = rates(
            stepper(gym.make_vec("CartPoleND-v0", num_envs=num_envs), steps),
            stepper(gym.make_vec("CartPole-v1", num_envs=num_envs), steps),
            rounds=rounds,
        )
        ratios[f"vector env, {num_envs} envs / CartPoleVectorEnv"] = ours / theirs
    ours, theirs = rates(
        stepper(gym.make_vec("CartPoleND-v0", num_envs=64), 500),
        stepper(gym.make_vec("CartPole-v1", num_envs=64, vectorization_mode="sync"), 20),
        rounds=rounds,
    )
    ratios["vector env, 64 envs / SyncVectorEnv(CartPole-v1)"] = ours / theirs
    ours, theirs = rates(
        single_stepper(gym.make("CartPoleND-v0"), 2000),
        single_stepper(gym.make("CartPole-v1"), 2000),
        rounds=rounds,
    )
    ratios["single env / CartPole-v1"] = ours / theirs
    axes = (1, 2, 4, 8)
    speeds = rates(
        *(stepper(gym.make_vec("CartPoleND-v0", num_envs=1024, n=n), 100) for n in axes),
        rounds=rounds,
    )
    for n, speed in zip(axes[1:], speeds[1:], strict=True):
        ratios[f"time per axis, n={n} / n=1, 1024 envs"] = speeds[0] / speed / n
    return ratios


def main() -> None:
    """Print the ratios as a table."""
    for name, ratio in measure().items():
        print(f"{name:<52} {ratio:8.2f}")


if __name__ == "__main__":
    main()
