"""Derived metrics: pure functions over the captures of one series (a run's layer and gate), oldest first."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

DRIFT_CAPTURES: Final = 8
"""A histogram is compared with the mean of so many before it."""
RANK_CAPTURES: Final = 16
"""The captures over which the movement of the units is looked at."""
MEMORY_GATES: Final = frozenset({"forget", "update"})
"""The gates whose activation is the share of the old state that is kept."""


def memory_timescale(kept: float) -> float | None:
    """How many steps a unit remembers: τ = −1 / ln(mean share of the state that is kept).

    A fresh Keras LSTM has a mean forget gate near 0.73, so τ ≈ 3.2 steps (Mahto et al. 2021, "Multi-timescale
    Representation Learning in LSTM Language Models").

    Args:
        kept: mean of an LSTM's forget gate or of a GRU's update gate, 0 to 1.

    Returns:
        Steps; 0 for a gate that is shut; None where the gate keeps everything and τ has no bound.
    """
    if not 0 <= kept < 1:
        return None
    return 0.0 if kept == 0 else -1.0 / math.log(kept)


def drift(histograms: Array, captures: int = DRIFT_CAPTURES) -> Array:
    """How far each capture's distribution is from the mean of those before it.

    The Jensen-Shannon distance in bits (Endres and Schindelin 2003): 0 for the same, 1 for no overlap.

    Args:
        histograms: (captures, bins), shares; a row with NaN has no drift, and is left out of the means.
        captures: how many before each are averaged.

    Returns:
        (captures,), NaN where there is nothing to compare with.
    """
    known = np.all(np.isfinite(histograms), axis=1)
    result = np.full(len(histograms), np.nan)
    for k in np.flatnonzero(known):
        past = histograms[max(0, k - captures) : k][known[max(0, k - captures) : k]]
        if len(past):
            result[k] = _jensen_shannon(histograms[k], past.mean(axis=0))
    return result


def _jensen_shannon(p: Array, q: Array) -> float:
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(p > 0, p * np.log2(p / middle), 0) + np.where(q > 0, q * np.log2(q / middle), 0)
    return math.sqrt(max(0.0, float(bits.sum()) / 2))


def effective_rank(movement: Array) -> float | None:
    """In how many directions the units moved: e to the entropy of the normalised singular values.

    Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality". The mean of each unit is taken
    off first, so units that stand still, or all move as one, count as few.

    Args:
        movement: (captures, units), mean activations; columns with NaN are left out.

    Returns:
        1 to min(captures, units); None where nothing moved or fewer than two captures or units are known.
    """
    movement = movement[:, np.isfinite(movement).all(axis=0)]
    if min(movement.shape) < 2:
        return None
    centred = movement - movement.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    if values[0] <= 1e-7 * max(1.0, float(np.abs(movement).max())):
        return None
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def effective_ranks(units: Array, captures: int = RANK_CAPTURES) -> list[float | None]:
    """The effective rank over the last captures, at each capture.

    Args:
        units: (captures, units), mean activations.
        captures: how many, the newest included.
    """
    return [effective_rank(units[max(0, k + 1 - captures) : k + 1]) for k in range(len(units))]
