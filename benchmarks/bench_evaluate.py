"""How long it takes to test fresh agents as the tables have it: each by full episodes of the official env."""

from __future__ import annotations

import time

from benchmarks import Report, best_seconds, within
from gym_taskdistill import zoo
from gym_taskdistill.policies.evaluation import evaluate

N_AGENTS, LIMIT_MIN = 1000, 3


def measure() -> Report:
    """Measure the evaluation of Hopper's dataset, one episode for each agent, by the clock."""
    dataset = zoo.load("Hopper-v4")
    (seconds,) = best_seconds(lambda: evaluate(dataset, N_AGENTS, 1), rounds=1, clock=time.perf_counter)
    row = within(f"Hopper-v4, {N_AGENTS} agents × 1 episode, one core", seconds / 60, LIMIT_MIN, "min")
    return Report([row])
