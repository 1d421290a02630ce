"""Metrics of the activations of a gate: memory, drift, saturation, entropy, coupling, sensitivity to the market."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from gatewatch.jobs.scoring.captures import Array
from gatewatch.jobs.scoring.metrics.windows import before, latest, median, of_newest, rank_correlation, slope

DRIFT_CAPTURES: Final = 8
"""Number of earlier histograms whose mean a histogram is compared with."""
SATURATION_CAPTURES: Final = 16
"""Number of earlier captures whose median the saturation is compared with."""
TREND_CAPTURES: Final = 16
"""Number of captures that the line of the entropy is fitted to."""
VOLATILITY_STEPS: Final = 20
"""The steps over which volatility is taken: a month of trading days."""
REGIME_CAPTURES: Final = 64
"""Number of captures over which a gate is correlated with volatility: enough to see more than one regime."""
_STILL: Final = 1e-7
"""A standard deviation below this is that of rounded numbers."""


def memory_timescale(kept: ArrayLike) -> Array:
    """Return how many steps a unit remembers: τ = −1 / ln(mean share of the state that is kept).

    A fresh Keras LSTM has a mean forget gate near 0.73, so τ ≈ 3.2 steps (Mahto et al. 2021, "Multi-timescale
    Representation Learning in LSTM Language Models").

    Args:
        kept: means of an LSTM's forget gate or of a GRU's update gate, 0 to 1, of any shape.

    Returns:
        Steps, of the same shape; 0 for a gate that is shut; NaN where it keeps everything and τ has no bound.
    """
    kept = np.asarray(kept, dtype=np.float64)
    between = (kept > 0) & (kept < 1)
    steps = -1.0 / np.log(np.where(between, kept, 0.5))
    result: Array = np.where(between, steps, np.where(kept == 0, 0.0, np.nan))[()]
    return result


def drift(histograms: Array, newest: int | None = None) -> Array:
    """Return how far each capture's distribution is from the mean of the `DRIFT_CAPTURES` before it; see `drift_from`.

    Args:
        histograms: (..., n, bins), shares; a capture with NaN has no drift, and is left out of the means.
        newest: compute values for only this many of the newest captures; None: for all.

    Returns:
        (..., n), NaN where there is nothing to compare with.
    """
    if newest is not None:
        return of_newest(drift(of_newest(histograms, newest + DRIFT_CAPTURES, -2)), newest)
    known = np.all(np.isfinite(histograms), axis=-1)
    past = np.zeros(histograms.shape)
    count = np.zeros(known.shape)
    for ago in range(1, min(DRIFT_CAPTURES, histograms.shape[-2] - 1) + 1):
        past[..., ago:, :] += np.where(known[..., :-ago, None], histograms[..., :-ago, :], 0)
        count[..., ago:] += known[..., :-ago]
    with np.errstate(divide="ignore", invalid="ignore"):
        return drift_from(histograms, past / count[..., None])


def drift_from(histograms: Array, reference: Array) -> Array:
    """Return how far each distribution is from another, such as that of a baseline in the same phase.

    The Jensen-Shannon distance in bits (Endres and Schindelin 2003, "A new metric for probability distributions"): 0
    for the same, 1 for no overlap.

    Args:
        histograms: (..., bins), shares.
        reference: (..., bins), shares.

    Returns:
        (...), NaN where one of them has NaN.
    """
    p, q = np.broadcast_arrays(np.asarray(histograms, dtype=np.float64), np.asarray(reference, dtype=np.float64))
    known = np.isfinite(p).all(axis=-1) & np.isfinite(q).all(axis=-1)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(p > 0, p * np.log2(p / middle), 0) + np.where(q > 0, q * np.log2(q / middle), 0)
        return np.where(known, np.sqrt(np.maximum(0, bits.sum(axis=-1) / 2)), np.nan)


def saturation(low: Array, high: Array) -> Array:
    """Return the share of activations at either end (Karpathy, Johnson and Fei-Fei 2015): (..., n), 0 to 1.

    Args:
        low, high: (..., n), saturated_low and saturated_high.
    """
    return low + high


def saturation_change(low: Array, high: Array, newest: int | None = None) -> Array:
    """Return how far the saturated share moved from its median over the captures before, at the end that moved more.

    A forget gate that is mostly open remembers long, which is no fault (Karpathy, Johnson and Fei-Fei 2015,
    "Visualizing and Understanding Recurrent Networks"): what counts is that it changes.

    Args:
        low, high: (..., n), saturated_low and saturated_high.
        newest: compute values for only this many of the newest captures; None: for all.

    Returns:
        (..., n), −1 to 1, above 0 where more are saturated; NaN where fewer than four captures before have a value.
    """
    moved = [of_newest(end, newest) - median(before(end, SATURATION_CAPTURES, newest)) for end in (low, high)]
    return np.where(np.abs(moved[0]) > np.abs(moved[1]), *moved)


def entropy_trend(entropy: Array, newest: int | None = None) -> Array:
    """Return how fast the entropy of a gate falls or rises: the slope of a robust line, see `windows.slope`.

    Args:
        entropy: (..., n), bits.
        newest: compute values for only this many of the newest captures; None: for all.

    Returns:
        (..., n), bits per capture; NaN where fewer than four captures have a value.
    """
    return slope(latest(entropy, TREND_CAPTURES, newest))


def input_forget_coupling(input_units: Array, forget_units: Array) -> Array:
    """Return how far the units that forget are those that take input: the correlation of i and 1 − f over the units.

    A cell with coupled gates, f = 1 − i, has 1 by construction, at little cost (Greff et al. 2017, "LSTM: A Search
    Space Odyssey"). At 0 a unit's memory is written and cleared independently.

    Args:
        input_units, forget_units: (..., n, units), mean activations of the input and the forget gate.

    Returns:
        (..., n), −1 to 1; NaN where fewer than four units have a value, or they are all alike.
    """
    both = np.isfinite(input_units) & np.isfinite(forget_units)
    count = np.maximum(both.sum(axis=-1), 1)

    # NumPy adds in another order where an array lies by columns: the last digit would depend on the pieces.
    input_units, forget_units = np.ascontiguousarray(input_units), np.ascontiguousarray(forget_units)

    def mean(values: Array) -> Array:
        return np.asarray(np.where(both, values, 0).sum(axis=-1) / count)

    centred = [values - mean(values)[..., None] for values in (input_units, 1 - forget_units)]
    spread = np.sqrt(mean(centred[0] ** 2)), np.sqrt(mean(centred[1] ** 2))
    known = (both.sum(axis=-1) >= 4) & (spread[0] > _STILL) & (spread[1] > _STILL)
    shared = np.where(known, spread[0] * spread[1], 1)
    return np.where(known, np.clip(mean(centred[0] * centred[1]) / shared, -1, 1), np.nan)


def volatility(price: Array, newest: int | None = None) -> Array:
    """Return the standard deviation of the logarithmic returns of the last steps, at each step; not annualised.

    Args:
        price: (..., n), one per step; NaN, 0 or less where there is none.
        newest: compute values for only this many of the newest steps; None: for all.

    Returns:
        (..., n), NaN where fewer than four returns have a value.
    """
    logarithm = np.log(np.where(price > 0, price, np.nan))
    returns = np.full(logarithm.shape, np.nan)
    returns[..., 1:] = logarithm[..., 1:] - logarithm[..., :-1]
    windows = np.ascontiguousarray(latest(returns, VOLATILITY_STEPS, newest))
    known = np.isfinite(windows)
    count = known.sum(axis=-1)
    mean = np.where(known, windows, 0).sum(axis=-1) / np.maximum(count, 1)
    square = np.where(known, (windows - mean[..., None]) ** 2, 0).sum(axis=-1) / np.maximum(count - 1, 1)
    return np.where(count >= 4, np.sqrt(square), np.nan)


def regime_sensitivity(mean: Array, volatility: Array, newest: int | None = None) -> Array:
    """Return whether a gate follows volatility: the rank correlation of its mean activation and the volatility.

    Ranks, since neither moves in proportion to the other; see `windows.rank_correlation`.

    Args:
        mean: (..., n), of a gate at each capture.
        volatility: (..., n), of the price at the captures' steps.
        newest: compute values for only this many of the newest captures; None: for all.

    Returns:
        (..., n), −1 (it shuts as volatility rises) to 1 (it opens); NaN where fewer than four captures have a value.
    """
    return rank_correlation(latest(mean, REGIME_CAPTURES, newest), latest(volatility, REGIME_CAPTURES, newest))
