"""The default training job, as a user runs it: how long, how good, how much memory."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import Report, Row, within
from gym_taskdistill.dataset.file import read_card

GIB = 2**30
POLL_S = 0.2


@dataclass(frozen=True)
class Plan:
    """A job and what is expected of it.

    Attributes:
        arguments: Arguments of ``python -m gym_taskdistill.train``.
        score: Mean return of fresh agents that it should reach.
        minutes: Time in which it should.
    """

    arguments: tuple[str, ...]
    score: float
    minutes: float


@dataclass(frozen=True)
class Outcome:
    """What a job did.

    Attributes:
        wall_clock_s: Seconds from start to end, imports and final test included.
        reached_s: Seconds until a test of fresh agents first reached the score, if one did.
        score: Final mean over agents, from other seeds than those tests.
        worst: Final mean return of the worst agent.
        peak_bytes: Largest resident memory of the process and its children together.
    """

    wall_clock_s: float
    reached_s: float | None
    score: float
    worst: float
    peak_bytes: int


def execute(plan: Plan) -> Outcome:
    """Run a job in a process of its own and watch it.

    Raises:
        RuntimeError: The job failed.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, "-m", "gym_taskdistill.train", *plan.arguments]
        start = time.perf_counter()
        process = subprocess.Popen([*command, "--out", folder], stdout=output, stderr=subprocess.STDOUT)
        reached, peak = None, 0
        try:
            while process.poll() is None:
                peak = max(peak, _resident_bytes(process.pid))
                if reached is None and _best(Path(folder)) >= plan.score:
                    reached = time.perf_counter() - start
                time.sleep(POLL_S)
        finally:
            process.kill()
        wall_clock = time.perf_counter() - start
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{output.read()}")
        # The run's last test may come less than a poll before its end.
        if reached is None and _best(Path(folder)) >= plan.score:
            reached = wall_clock
        (dataset,) = Path(folder).glob("*/dataset.safetensors")
        score = read_card(dataset).scores[0]
        return Outcome(wall_clock, reached, score.mean, score.min, peak)


def _best(folder: Path) -> float:
    """Best test of fresh agents so far, from the run's ``evaluations.csv``."""
    best = float("-inf")
    for table in folder.glob("*/*/evaluations.csv"):
        with table.open(newline="") as file:
            best = max([best, *(float(row["mean"]) for row in csv.DictReader(file))])
    return best


def _resident_bytes(pid: int) -> int:
    total = 0
    try:
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended meanwhile
    return total


def measure(n: int | None = None) -> Report:
    """Run the default job, or the same recipe for ``n`` axes.

    Args:
        n: Number of cart-pole axes; ``None`` for the recipe's.
    """
    if n is None:
        name, plan = "demo", Plan(("--seed", "0"), 490, 2)
    else:
        kwargs = ("--seed", "0", "--env-kwargs", f"n={n}")
        name, plan = f"demo, n={n}", Plan(kwargs, 470, 10)
    outcome = execute(plan)
    final = f"{outcome.score:.1f} (min {outcome.worst:.0f})"
    reached = None if outcome.reached_s is None else outcome.reached_s / 60
    return Report(
        [
            within(f"{name}: until fresh agents score {plan.score:g}", reached, plan.minutes, "min"),
            Row(f"{name}: until the end", f"{outcome.wall_clock_s / 60:.2f} min"),
            Row(
                f"{name}: final score",
                final,
                target=f"≥ {plan.score:g}",
                ok=outcome.score >= plan.score,
            ),
            within(f"{name}: peak memory", outcome.peak_bytes / GIB, 1, "GiB"),
        ]
    )
