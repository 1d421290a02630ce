"""The forecast of a signal from its recent past: a robust line, its usual error, and the pace at which the signal goes.

Pure functions over arrays with a column for each of C signals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array


def robust_line(at: Array, values: Array, ahead: Array) -> tuple[Array, Array]:
    """Return the robust line (Theil 1950, Sen 1968) through the values, `ahead` captures past the last time.

    Args:
        at: (R, C), numbers of captures, ascending.
        values: (R, C), the values at these captures.
        ahead: (C,), in captures.

    Returns:
        The line's value, and its slope per capture: (C,) each.
    """
    first, second = np.triu_indices(len(at), 1)
    slope = np.median((values[second] - values[first]) / (at[second] - at[first]), axis=0)
    level = np.median(values - slope * (at - at[-1]), axis=0)
    return np.asarray(level + slope * ahead), np.asarray(slope)


def usual_size(distances: Array) -> tuple[NDArray[np.int64], Array]:
    """Return how many distances of each signal are finite, and their median as a standard deviation; 0 if none is.

    Args:
        distances: (n, C), sizes; NaN where there is none.
    """
    count, median = finite_median(distances)
    return count, np.where(count > 0, 1.4826 * median, 0.0)


def pace(slope: Array, newest: Array) -> Array:
    """Return how far each signal goes per capture, whatever its direction: (C,).

    It is the slope of the forecast's line, or what the newest captures go by where that is more: the median of their
    steps, or the slope of the robust line through them, whichever is less. A jump is one large step among small ones,
    so the median step does not see it; noise goes up and down, so it has steps, but hardly a slope. Learning has both.

    Args:
        slope: (C,), per capture.
        newest: (n, C), the newest values, in the order of captures; NaN where there is none.
    """
    first, second = np.triu_indices(len(newest), 1)
    _, by_slope = finite_median((newest[second] - newest[first]) / (second - first)[:, None])
    _, by_step = finite_median(np.diff(newest, axis=0))
    return np.fmax(np.abs(slope), np.fmin(np.abs(by_slope), np.abs(by_step)))


def finite_median(values: Array) -> tuple[NDArray[np.int64], Array]:
    """Return how many of the (n, C) values of each column are finite, and their median; 0 where none is."""
    count = np.isfinite(values).sum(axis=0)
    if not len(values):
        return count, np.zeros(values.shape[1])
    ordered = np.sort(values, axis=0)  # NaN comes last
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)
    columns = np.arange(values.shape[1])
    median = (ordered[low, columns] + ordered[high, columns]) / 2
    return count, np.where(count > 0, median, 0.0)
