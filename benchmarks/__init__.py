"""Speed measurements side by side with other libraries: ``python -m benchmarks``.

A machine is fast or slow, busy or idle; a ratio within one run is comparable all the same.
Whatever is compared is therefore timed in turns, and each side keeps its best round. Training is
compared by CPU time: beside other jobs the shorter round more often runs undisturbed, so that the best
wall-clock would flatter the faster side. Nothing here fails because something is slow: a measure that
misses its target is printed as such.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        name: What was measured.
        ours: Our figure with its unit.
        peer: The figure it is compared with; empty where there is none.
        ratio: Ours over the peer's; ``None`` where there is no peer.
        target: What is aimed at, such as ``"≥ 2"``; empty for a figure given as information.
        ok: Whether the target is met; ``None`` without one.
    """

    name: str
    ours: str
    peer: str = ""
    ratio: float | None = None
    target: str = ""
    ok: bool | None = None


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        rows: Lines of the table.
        notes: What does not fit into a line, printed after the table.
    """

    rows: list[Row]
    notes: list[str] = field(default_factory=list)


def at_least(
    name: str,
    ours: float,
    peer: float,
    target: float | None = None,
    unit: str = "",
    shown: str = ",.0f",
) -> Row:
    """Compare two figures of which the higher is the better, such as steps per second.

    Args:
        name: What was measured.
        ours: Our figure.
        peer: The other's.
        target: Ratio aimed at, if any.
        unit: Unit of both.
        shown: Format of both.
    """
    ratio = ours / peer
    texts = (f"{ours:{shown}} {unit}".strip(), f"{peer:{shown}} {unit}".strip())
    if target is None:
        return Row(name, *texts, ratio)
    return Row(name, *texts, ratio, f"≥ {target:g}", ratio >= target)


def within(name: str, ours: float | None, limit: float, unit: str, shown: str = ".2f") -> Row:
    """Hold a figure against a fixed limit, such as seconds.

    Args:
        name: What was measured.
        ours: Our figure, ``None`` if it was never reached.
        limit: The most it should be.
        unit: Unit of both.
        shown: Format of our figure.
    """
    text = "never" if ours is None else f"{ours:{shown}} {unit}"
    return Row(name, text, target=f"≤ {limit:g} {unit}", ok=ours is not None and ours <= limit)


def best_seconds(
    *functions: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> list[float]:
    """Time functions in turns and return the shortest time of each, in seconds.

    Args:
        functions: What to time, each in one thread.
        rounds: How often.
        clock: CPU time, for ratios, or `time.perf_counter`, for limits that a user feels.
    """
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for i, function in enumerate(functions):
            start = clock()
            function()
            best[i] = min(best[i], clock() - start)
    return best
