"""What two cores bring to simulation and training, by the clock: threads of EnvPool, processes elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from benchmarks import Report, Row, at_least, best_seconds
from benchmarks.bench_ppmo import MUJOCO, Job, learner, ppmo
from gym_taskdistill.machine import use_threads

N_JOBS, ROUNDS, STEPS = 2, 3, 8_192


def stepper(env: VecEnv) -> Callable[[], None]:
    """Return a function that takes some random steps, the same each time."""
    space = env.action_space
    assert isinstance(space, spaces.Box)
    shape = (STEPS // env.num_envs, env.num_envs, *space.shape)
    actions = np.random.default_rng(0).uniform(space.low, space.high, shape).astype(space.dtype)
    env.seed(0)
    env.reset()

    def run() -> None:
        for row in actions:
            env.step(row)

    return run


def trainer(job: Job, n_jobs: int) -> Callable[[], None]:
    """Return a function that trains for some meta-epochs, its envs on so many cores."""
    use_threads(n_jobs)
    run = learner(ppmo(job))
    use_threads(1)
    return run


def compare(name: str, two: Callable[[], None], one: Callable[[], None], steps: int) -> Row:
    """Compare env steps per second of the clock."""
    seconds = best_seconds(two, one, rounds=ROUNDS, clock=time.perf_counter)
    ours, peer = (steps / s for s in seconds)
    return at_least(f"{name}: {N_JOBS} cores / 1", ours, peer, unit="steps/s")


def measure() -> Report:
    """Measure simulation by both backends, and training."""
    rows = []
    for job in MUJOCO:
        for backend in ("envpool", "gymnasium"):
            envs = [job.task.make_vec_env(job.stage.n_envs, backend=backend, n_jobs=n) for n in (N_JOBS, 1)]
            two, one = map(stepper, envs)
            rows.append(compare(f"{job.task}, simulation by {backend}", two, one, STEPS))
            for env in envs:
                env.close()
        two, one = (trainer(job, n) for n in (N_JOBS, 1))
        rows.append(compare(f"{job.task}, training", two, one, 16_384))
    return Report(rows)
