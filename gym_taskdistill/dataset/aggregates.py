"""What many returns come to: mean, interquartile mean and their intervals, and how the worst fare.

The formulas are those of Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical
precipice", and of their library rliable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

#: Chance that an interval holds what it is of.
CONFIDENCE = 0.95

#: Resamples of a bootstrap, as rliable's examples draw them.
N_RESAMPLES = 2000

#: Maps samples ``(..., n)`` to what they come to, ``(...)``.
Statistic = Callable[[np.ndarray], np.ndarray]

#: Ends of an interval.
Interval = tuple[float, float]


def mean(values: np.ndarray) -> np.ndarray:
    """Return the means of samples ``(..., n)``."""
    means: np.ndarray = values.mean(axis=-1)
    return means


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Return the means of the middle halves of samples ``(..., n)``, which outliers do not move.

    As SciPy's ``trim_mean(values, 0.25)``, which rliable calls: of n values ``int(n / 4)`` are cut off at
    either end.

    >>> float(interquartile_mean(np.array([0.0, 4, 5, 6, 900])))
    5.0
    """
    n = values.shape[-1]
    cut = n // 4
    middle: np.ndarray = np.sort(values, axis=-1)[..., cut : n - cut].mean(axis=-1)
    return middle


def bootstrap(
    scores: ArrayLike, statistic: Statistic = mean, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> Interval | None:
    """Return the interval, of 95 %, of what runs come to: a stratified percentile bootstrap.

    The runs of each task are drawn anew with replacement, each task's by themselves, and the statistic is
    that of all of them. The ends are percentiles of what the draws come to. Of a handful of runs an interval
    is a rough one, and rather too narrow.

    Args:
        scores: A score for each run, ``(n_runs,)``, or for each run of each task, ``(n_runs, n_tasks)``.
        statistic: What they come to.
        n_resamples: How often runs are drawn.
        seed: Makes the interval the same each time.

    Returns:
        Both ends, or ``None`` if there is one run alone, which tells nothing of others.

    >>> bootstrap([1.0, 2.0, 3.0, 4.0, 5.0])
    (1.8, 4.2)
    >>> bootstrap([1.0])
    """
    table = np.asarray(scores, dtype=np.float64)
    table = table.reshape(len(table), -1)
    if len(table) < 2:
        return None
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(table), size=(n_resamples, *table.shape))
    samples = np.take_along_axis(table[None], drawn, axis=1).reshape(n_resamples, -1)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(statistic(samples), [tail, 100 - tail])
    return float(low), float(high)


def band(curves: ArrayLike, n_resamples: int = N_RESAMPLES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the intervals, of 95 %, of the mean of runs' curves, point by point; see `bootstrap`.

    Args:
        curves: ``(n_runs, n_points)``.
        n_resamples: How often runs are drawn.
        seed: Makes the intervals the same each time.

    Returns:
        Lower and upper ends, ``(n_points,)`` each; both the curve itself if there is one alone.
    """
    table = np.asarray(curves, dtype=np.float64)
    n = len(table)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn @ table / n, [tail, 100 - tail], axis=0)
    return low, high


@dataclass(frozen=True)
class Aggregates:
    """What the returns of many agents, or of many distillations, come to.

    Attributes:
        n: How many there are.
        mean: Their mean.
        mean_interval: Its interval of 95 %; ``None`` if there is one return alone.
        iqm: Their interquartile mean.
        iqm_interval: Its interval.
        far_below: Share of them that lie below the median by more than half of its size: of positive returns
            those under half of the median.
        quantile: The 5 % quantile.
        worst: The lowest.
    """

    n: int
    mean: float
    mean_interval: Interval | None
    iqm: float
    iqm_interval: Interval | None
    far_below: float
    quantile: float
    worst: float

    @classmethod
    def of(cls, returns: ArrayLike) -> Aggregates:
        """Aggregate returns, at least one.

        Args:
            returns: ``(n,)``.

        >>> some = Aggregates.of([500.0] * 9 + [100.0])
        >>> some.mean, some.iqm, some.far_below, some.worst
        (460.0, 500.0, 0.1, 100.0)
        """
        values = np.asarray(returns, dtype=np.float64).ravel()
        median = float(np.median(values))
        return cls(
            n=len(values),
            mean=float(values.mean()),
            mean_interval=bootstrap(values),
            iqm=float(interquartile_mean(values)),
            iqm_interval=bootstrap(values, interquartile_mean),
            far_below=float((values < median - abs(median) / 2).mean()),
            quantile=float(np.quantile(values, 0.05)),
            worst=float(values.min()),
        )
