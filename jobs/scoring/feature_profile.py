"""What features look like over several batches: where they are, how far they move, how much the next bar keeps.

Batches of a training and windows of a backtest have other sizes and lengths. What is said here depends on neither, so
that the two can be compared.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

import numpy as np

from gatewatch.jobs.scoring.capture_tables import Array
from gatewatch.jobs.scoring.metrics.windows import median

_FEWEST_POSITIONS: Final = 3
"""Of two positions the autocorrelation is -1/2 whatever they are, since their own mean is removed."""
_COEFFICIENTS: Final = np.concatenate([np.linspace(-0.95, 0.9, 75), 1 - np.geomspace(0.1, 0.002, 25)[1:]])


class FeatureProfile(NamedTuple):
    """What features look like; NaN where that is not known.

    Attributes:
        mean: (F,).
        std: (F,), of all values together.
        persistence: (F,), the share of its distance from the mean that a value keeps to the next bar, -0.95 to 0.998.
    """

    mean: Array
    std: Array
    persistence: Array


def profile_of(mean: Array, std: Array, lag1: Array, sequences: Array, positions: Array) -> FeatureProfile:
    """Return what features look like in n captures together.

    The variance is that within captures and that between their means. The persistence is the median of the captures.

    Args:
        mean, std, lag1: (n, F), statistics of `feed_features`.
        sequences, positions: (n,), of `feed_stats`.
    """
    known = np.isfinite(mean + std)
    weight = np.where(known, np.nan_to_num(sequences * positions, nan=1.0)[:, None], 0.0)
    share = weight / np.maximum(weight.sum(axis=0), 1.0)
    centre = (share * np.where(known, mean, 0.0)).sum(axis=0)
    apart = np.where(known, mean, 0.0) - centre
    variance = (share * (np.where(known, std, 0.0) ** 2 + apart**2)).sum(axis=0)
    any_known = known.any(axis=0)
    kept = np.stack([persistence(row, length) for row, length in zip(lag1, positions, strict=True)], axis=1)
    return FeatureProfile(
        np.where(any_known, centre, np.nan), np.where(any_known, np.sqrt(variance), np.nan), median(kept, fewest=1)
    )


def persistence(lag1: Array, positions: float) -> Array:
    """Return the coefficient of the autoregressive process of first order that has an autocorrelation, on average.

    The mean of each sequence is removed from it before `lag1` is taken, so short sequences have less of it: with a
    coefficient of 0.9 four bars have 0.03, twenty-four have 0.75. For x with covariances φ^|i-j|, T positions,
    S = Σ_ij φ^|i-j| and G = Σ_k φ^k the expected sum of squares is T - S/T, and that of the products of neighbours is
    (T-1)φ - 2S/T + 2G/T + (T-1)S/T²; `lag1` estimates their quotient.

    Args:
        lag1: (F,).
        positions: T.

    Returns:
        (F,), NaN where there is no `lag1` or fewer than 3 positions.
    """
    if not positions >= _FEWEST_POSITIONS:
        return np.full(lag1.shape, np.nan)
    return np.where(np.isfinite(lag1), np.interp(lag1, _expected_lag1(int(positions)), _COEFFICIENTS), np.nan)


@cache
def _expected_lag1(positions: int) -> Array:
    """Return what `lag1` is on average of sequences with each of `_COEFFICIENTS`, ascending."""
    size, lags = float(positions), np.arange(positions)
    powers = _COEFFICIENTS[:, None] ** lags
    whole = 2 * ((size - lags) * powers).sum(axis=1) - size
    products = (size - 1) * (_COEFFICIENTS + whole / size**2) + 2 * (powers.sum(axis=1) - whole) / size
    return np.asarray(products / (size - whole / size))
