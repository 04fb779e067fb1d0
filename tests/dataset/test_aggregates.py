"""What returns come to is what rliable and SciPy say."""

from __future__ import annotations

import numpy as np
import pytest

from gym_taskdistill.dataset.aggregates import Aggregates, Statistic, bootstrap, interquartile_mean, mean

#: Five runs of three tasks, with an outlier.
SCORES = np.array(
    [
        [1.0, 12.0, 300.0],
        [2.5, 9.0, 310.0],
        [0.5, 15.0, 150.0],
        [3.0, 11.0, 290.0],
        [2.0, 40.0, 305.0],
    ]
)

#: What rliable 1.2.0 says of them, of all tasks and of the last one by itself: the point and the ends of
#: ``library.get_interval_estimates({"a": scores}, metric, reps=50_000)``, metric being
#: ``metrics.aggregate_mean`` or ``metrics.aggregate_iqm``. Under arch 8, where ``random_state`` is ``seed``.
RLIABLE: list[tuple[np.ndarray, Statistic, float, tuple[float, float]]] = [
    (SCORES, mean, 96.73333333, (75.7, 109.9)),
    (SCORES, interquartile_mean, 59.16666667, (40.11111111, 80.5)),
    (SCORES[:, 2:], mean, 271.0, (210.0, 306.0)),
    (SCORES[:, 2:], interquartile_mean, 298.33333333, (196.66666667, 308.33333333)),
]


@pytest.mark.parametrize(("scores", "statistic", "point", "interval"), RLIABLE)
def test_rliable_says_the_same(
    scores: np.ndarray, statistic: Statistic, point: float, interval: tuple[float, float]
) -> None:
    assert float(statistic(scores.ravel())) == pytest.approx(point)
    # Both draw at random; what they draw moves the ends by no more than this.
    width = interval[1] - interval[0]
    assert bootstrap(scores, statistic, 20_000) == pytest.approx(interval, abs=0.03 * width)
    assert bootstrap(scores, statistic) == pytest.approx(interval, abs=0.1 * width)
    assert bootstrap(scores, statistic) == bootstrap(scores, statistic)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 1000])
def test_scipy_says_the_same(n: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n).normal(size=(3, n))
    np.testing.assert_allclose(interquartile_mean(values), stats.trim_mean(values, 0.25, axis=-1))


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = [
        low <= 3.0 <= high
        for low, high in (
            bootstrap(rng.normal(3.0, 2.0, size=50), n_resamples=400) or (0.0, 0.0) for _ in range(300)
        )
    ]
    assert 0.90 <= np.mean(held) <= 0.98


def test_strata_are_drawn_by_themselves() -> None:
    """Tasks of other scales without spread leave nothing to draw: only the first moves the ends."""
    low, high = bootstrap(np.array([[0.0, 1000.0], [2.0, 1000.0]])) or (0.0, 0.0)
    assert (low, high) == (500.0, 501.0)


def test_how_the_worst_fare() -> None:
    some = Aggregates.of([100.0] * 18 + [49.0, -20.0])
    assert (some.n, some.worst, some.far_below) == (20, -20.0, 0.1)
    assert some.iqm == 100.0
    assert some.quantile == pytest.approx(np.quantile([100.0] * 18 + [49.0, -20.0], 0.05))
    assert some.mean_interval is not None and some.mean_interval[0] < some.mean < some.mean_interval[1]


def test_of_negative_returns_those_half_as_low_again_are_far_below() -> None:
    assert Aggregates.of([-4.0, -4.0, -5.9, -6.1]).far_below == 0.0  # of a median of -4.95
    assert Aggregates.of([-4.0, -4.0, -4.0, -6.1]).far_below == 0.25


def test_one_return_has_no_interval() -> None:
    assert Aggregates.of([3.0]).mean_interval is None
    assert Aggregates.of([3.0]).iqm_interval is None
