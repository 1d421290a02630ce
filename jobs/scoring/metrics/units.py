"""Metrics of the units of a layer: dead and frozen ones, and in how many directions they move."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from gatewatch.jobs.scoring.captures import Array
from gatewatch.jobs.scoring.metrics.windows import latest, piecewise

RANK_CAPTURES: Final = 16
"""Number of captures over which the movement of the units is measured."""
FROZEN_CAPTURES: Final = 16
"""Number of captures without movement after which a unit is frozen."""
FROZEN_RANGE: Final = 1e-6
"""Smaller changes, as a share of the gate's range, are no movement: ten times the resolution of single precision."""


def dead_share(dead_units: Array, units: ArrayLike) -> Array:
    """Return the share of a layer's units that are dormant: their activity is below 0.025 of the layer's mean.

    Sokar et al. 2023, "The Dormant Neuron Phenomenon in Deep Reinforcement Learning".

    Args:
        dead_units: (..., n), the field of `gate_stats`.
        units: how many the layer has; 0 where that is unknown.

    Returns:
        (..., n), 0 to 1; NaN where the layer's size is unknown.
    """
    units = np.asarray(units, dtype=np.float64)
    return dead_units / np.where(units > 0, units, np.nan)


def frozen_share(units: Array, width: float = 1.0, newest: int | None = None) -> Array:
    """Return the share of a layer's units whose mean activation did not move over the last captures.

    The inputs are the same at each capture. So a unit that does not move does not learn, and neither do the layers
    before it.

    Args:
        units: (..., n, units), mean activations.
        width: width of the gate's range, see `gate_scale`.
        newest: compute values for only this many of the newest captures; None: for all.

    Returns:
        (..., n), 0 to 1, over the units that have a value in all of these captures; NaN where none is.
    """
    windows = latest(units, FROZEN_CAPTURES, newest, axis=-2)
    moved = windows.max(axis=-1) - windows.min(axis=-1)  # NaN where one of them is
    known = np.isfinite(moved).sum(axis=-1)
    still = (moved <= FROZEN_RANGE * width).sum(axis=-1)
    return np.where(known > 0, still / np.maximum(known, 1), np.nan)


def effective_ranks(units: Array, newest: int | None = None) -> Array:
    """Return in how many directions the units moved over the last captures.

    e to the entropy of the normalised singular values (Roy and Vetterli 2007, "The effective rank: a measure of
    effective dimensionality"). The mean of each unit is taken off first, so units that stand still, or all move as
    one, count as few.

    Args:
        units: (..., n, units), mean activations. Captures without any unit are left out, and of the others units
            without a value in one of them.
        newest: compute values for only this many of the newest captures; None: for all.

    Returns:
        (..., n), 1 to min(`RANK_CAPTURES`, units); NaN where nothing moved, or fewer than two captures or units have a
        value.
    """
    return piecewise(_effective_rank, latest(units, RANK_CAPTURES, newest, axis=-2), within=2)


def _effective_rank(windows: Array) -> Array:
    """Of (m, units, captures)."""
    known = np.isfinite(windows)
    present = np.any(known, axis=1, keepdims=True)
    kept = np.all(known | ~present, axis=2, keepdims=True)
    values = np.where(kept & present, windows, 0)
    count = present.sum(axis=2, keepdims=True)
    centred = np.where(kept & present, values - values.sum(axis=2, keepdims=True) / np.maximum(count, 1), 0)
    if not centred.size:
        return np.full(len(windows), np.nan)
    singular = np.linalg.svd(centred, compute_uv=False)
    moved = singular[:, 0] > 1e-7 * np.maximum(1.0, np.abs(values).max(axis=(1, 2)))
    moved &= (count[:, 0, 0] >= 2) & (kept.sum(axis=(1, 2)) >= 2)
    shares = singular / np.where(moved, singular.sum(axis=1), 1)[:, None]
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1)
    return np.where(moved, np.exp(entropy), np.nan)
