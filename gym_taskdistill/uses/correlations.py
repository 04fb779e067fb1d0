"""Rank correlations: whether what a search says of architectures agrees with what real training says."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gym_taskdistill.dataset.aggregates import CONFIDENCE, Interval
from gym_taskdistill.errors import TaskDistillError, did_you_mean, import_extra

#: Resamples of a bootstrap.
N_RESAMPLES = 5000

#: Fewest pairs that a rank correlation means something of.
FEWEST = 4


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of two columns.

    Attributes:
        rho: From -1 to 1; NaN where all values of a column are equal.
        interval: Its bootstrap interval of 95 %, over pairs; ``None`` where rho is NaN.
        n: Number of pairs.
    """

    rho: float
    interval: Interval | None
    n: int

    def __str__(self) -> str:
        if self.interval is None:
            return f"undefined, since all values are equal ({self.n} architectures)"
        low, high = self.interval
        return f"{self.rho:.2f} [{low:.2f}, {high:.2f}] ({self.n} architectures)"


def correlation(x: ArrayLike, y: ArrayLike, seed: int = 0) -> Correlation:
    """Return Spearman's rho of two columns, with a percentile bootstrap over pairs.

    Args:
        x: A value for each architecture, ``(n,)``.
        y: Another one, ``(n,)``.
        seed: Makes the interval the same each time.

    Raises:
        TaskDistillError: SciPy is not installed, or there are too few pairs.

    >>> correlation([1, 2, 3, 4, 5], [10, 20, 30, 50, 40]).rho
    0.9
    """
    values = np.asarray([x, y], dtype=np.float64)
    n = values.shape[1]
    if n < FEWEST:
        raise TaskDistillError(
            f"A rank correlation needs at least {FEWEST} architectures that both sides have, not {n}."
        )
    rho = float(_rho(values[:, None])[0])
    if math.isnan(rho):
        return Correlation(rho, None, n)
    drawn = np.random.default_rng(seed).integers(n, size=(N_RESAMPLES, n))
    found = _rho(values[:, drawn])
    tail = 50 * (1 - CONFIDENCE)
    # A draw of equal values alone has no ranks.
    low, high = np.percentile(found[~np.isnan(found)], [tail, 100 - tail])
    return Correlation(rho, (float(low), float(high)), n)


def _rho(samples: np.ndarray) -> np.ndarray:
    """Return Spearman's rho of samples ``(2, n_samples, n)``; NaN where a column is constant."""
    ranks = _stats().rankdata(samples, axis=-1)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    size = np.sqrt(np.square(ranks).sum(axis=-1).prod(axis=0))
    products = (ranks[0] * ranks[1]).sum(axis=-1)
    rho: np.ndarray = np.round(np.divide(products, size, out=np.full_like(size, np.nan), where=size > 0), 12)
    return rho


def _stats() -> Any:
    return import_extra("scipy.stats", "baselines", "Rank correlations")


def read_column(path: Path, column: str) -> dict[str, float]:
    """Read a column of a CSV file that has a column ``architecture`` too.

    Args:
        path: The file, with a head line. An architecture may have several lines, as of several seeds: its
            value is their mean.
        column: Name of the column.

    Returns:
        The values by the architectures' names; empty cells are left out.

    Raises:
        TaskDistillError: The file cannot be read, has no such column, or has something else than numbers.
    """
    what = f'The table "{path}"'
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TaskDistillError(
            f"{what} cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from None
    for name in ("architecture", column):
        if name not in names:
            raise TaskDistillError(
                f'{what} has no column "{name}"; it has {", ".join(names)}.{did_you_mean(name, names)}'
            )
    found: dict[str, list[float]] = {}
    for i, row in enumerate(rows):
        text = (row[column] or "").strip()
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise TaskDistillError(
                f'{what} has "{text[:40]}" in row {i + 1} of "{column}", which is no number.'
            )
        found.setdefault(str(row["architecture"]), []).append(value)
    return {name: float(np.mean(values)) for name, values in found.items()}


def read_reference(path: Path, column: str, names: Iterable[str]) -> dict[str, float]:
    """Read a column that others are to be correlated with later, so that what lacks shows before work begins.

    Args:
        path: As for `read_column`.
        column: Likewise.
        names: Names of the architectures that there will be.

    Raises:
        TaskDistillError: As for `read_column`; or SciPy is not installed, or too few architectures are in it.
    """
    _stats()
    found = read_column(path, column)
    n = len(found.keys() & set(names))
    if n < FEWEST:
        raise TaskDistillError(
            f'The table "{path}" has {n} of the architectures that are examined, but a rank correlation '
            f"needs at least {FEWEST}; an architecture is named as 64x2,tanh,orthogonal."
        )
    return found


def correlations(
    columns: Mapping[str, Mapping[str, float]], reference: Mapping[str, float]
) -> dict[str, Correlation]:
    """Correlate columns with one of real training, over the architectures that both have.

    Args:
        columns: Values by the names of columns and of architectures.
        reference: Values of real training by the names of architectures.

    Raises:
        TaskDistillError: Both have too few architectures in common.
    """
    found = {}
    for name, column in columns.items():
        common: Sequence[str] = [one for one in column if one in reference]
        found[name] = correlation([column[one] for one in common], [reference[one] for one in common])
    return found
