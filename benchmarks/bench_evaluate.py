"""How long it takes to test fresh agents as the tables have it: each by full episodes of the official env."""

from __future__ import annotations

import time
from functools import partial

from benchmarks import Report, at_least, best_seconds, within
from gym_taskdistill import zoo
from gym_taskdistill.policies.evaluation import evaluate

N_AGENTS, N_JOBS, LIMIT_MIN = 1000, 2, 3
#: Agents of one tile, enough to compare two cores with one.
N_COMPARED = 64


def measure() -> Report:
    """Measure the evaluation of Hopper's dataset, one episode for each agent, by the clock."""
    dataset = zoo.load("Hopper-v4")
    clock = time.perf_counter
    (seconds,) = best_seconds(lambda: evaluate(dataset, N_AGENTS, 1, n_jobs=N_JOBS), rounds=1, clock=clock)
    whole = within(f"Hopper-v4, {N_AGENTS} agents × 1 episode, 2 cores", seconds / 60, LIMIT_MIN, "min")
    compared = (partial(evaluate, dataset, N_COMPARED, 1, n_jobs=n) for n in (N_JOBS, 1))
    two, one = (N_COMPARED / s for s in best_seconds(*compared, rounds=2, clock=clock))
    name = f"Hopper-v4, {N_COMPARED} agents × 1 episode: 2 cores / 1"
    return Report([whole, at_least(name, two, one, unit="episodes/s", shown=".1f")])
