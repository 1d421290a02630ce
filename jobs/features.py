"""What is scored: not where a statistic is, but how far it went from where it was going.

A network that learns moves, so levels say little: a forest on levels calls nearly every healthy capture abnormal.
Each statistic of a series is forecast from its own recent past by a robust line (Theil 1950, Sen 1968), and the
distance from that forecast is measured in multiples of the distances that are usual for the series. A capture that is
far off is not learned from, so a fault stays visible while it lasts; the forecast grows less certain the older it is,
as that of a random walk does, so a new normal is accepted in the end, a small step sooner than a large one.

Notation: S series of n captures with P statistics, oldest capture first. All is causal: what is said of a capture
depends on it and on earlier ones alone.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

FEATURES: Final = ("mean_activation", "spread", "entropy", "zero_crossing_rate", "saturation")
"""The statistics that are followed: mean and std as shares of the gate's scale, entropy, zero_crossing_rate,
saturated_low + saturated_high."""
FLOORS: Final = np.array([0.005, 0.005, 0.05, 0.01, 0.01])
"""What counts as one usual deviation at the least, however still the series was before: in units of the statistic."""
REFERENCE: Final = 8
"""Captures that the line is drawn through."""
SMOOTHED: Final = 3
"""The median of so many newest captures is what is compared: one capture alone raises nothing."""
HISTORY: Final = 64
"""Captures whose deviations say what is usual."""
LEARNED_FROM: Final = 8.0
"""A capture further off than this many usual deviations is not learned from."""
WARM_UP: Final = 32
"""The first captures of a run and phase, which a detector learns from; they get no score."""
_FEWEST = 4


def deviations(statistics: Array) -> Array:
    """How far each capture is from the forecast, signed, in multiples of what is usual for the series.

    Args:
        statistics: (S, n, P) with the P of `FEATURES`.

    Returns:
        (S, n, P); NaN where the past is too short or a statistic is not finite.
    """
    series, captures, features = statistics.shape
    result = np.full(statistics.shape, np.nan)
    if captures < SMOOTHED:
        return result
    smoothed = np.full(statistics.shape, np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(statistics, SMOOTHED, axis=1)
    smoothed[:, SMOOTHED - 1 :] = np.median(windows, axis=-1)

    learned = np.all(np.isfinite(statistics), axis=2)
    usual = np.full(statistics.shape, np.nan)
    at = np.zeros((series, REFERENCE))
    values = np.zeros((series, REFERENCE, features))
    count = np.zeros(series, dtype=int)
    for k in range(SMOOTHED, captures):
        new = np.flatnonzero(learned[:, k - SMOOTHED])
        at[new] = np.roll(at[new], -1, axis=1)
        values[new] = np.roll(values[new], -1, axis=1)
        at[new, -1], values[new, -1] = k - SMOOTHED, statistics[new, k - SMOOTHED]
        count[new] += 1
        ready = np.flatnonzero(count >= REFERENCE)
        if not ready.size:
            continue
        age = k - 1 - at[ready, -1]  # the median stands for the middle of its captures
        forecast = _line(at[ready], values[ready], np.minimum(age, REFERENCE))
        off = smoothed[ready, k] - forecast
        past = np.abs(usual[ready, max(0, k - HISTORY) : k - SMOOTHED + 1])
        known = np.isfinite(past[:, :, 0]).sum(axis=1) if past.shape[1] else np.zeros(len(ready), dtype=int)
        judged = known >= _FEWEST
        scale = np.zeros((len(ready), features))
        if judged.any():
            scale[judged] = 1.4826 * np.nanmedian(past[judged], axis=1)
        uncertainty = np.sqrt(1 + np.maximum(0, age - 2) / REFERENCE)[:, None]
        z = off / (np.maximum(scale, FLOORS) * uncertainty)
        result[ready[judged], k] = z[judged]
        with np.errstate(invalid="ignore"):
            near = np.abs(z).max(axis=1) <= LEARNED_FROM
        learned[ready, k] &= near | ~judged
        usual[ready, k] = np.where(learned[ready, k][:, None], off, np.nan)
    return result


def _line(at: Array, values: Array, ahead: Array) -> Array:
    """The robust line through (S, R) moments and (S, R, P) values, `ahead` captures past the last moment."""
    first, second = np.triu_indices(at.shape[1], 1)
    run = (at[:, second] - at[:, first])[:, :, None]
    slope = np.median((values[:, second] - values[:, first]) / run, axis=1)
    since = (at - at[:, -1:])[:, :, None]
    level = np.median(values - slope[:, None] * since, axis=1)
    line: Array = level + slope * ahead[:, None]
    return line
