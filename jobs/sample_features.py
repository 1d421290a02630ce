"""The features of a sample of activations and gradients, as `AnomalyDetector` compares them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from gatewatch.collector.arrays import iter_arrays
from gatewatch.collector.cells import GATES
from gatewatch.collector.schema import HISTOGRAM_BINS
from gatewatch.collector.statistics import crossings, entropy, gate_statistics, mean_and_std, saturation
from gatewatch.jobs.normal_range import STILL
from gatewatch.jobs.scoring.captures import Array
from gatewatch.jobs.scoring.signals import LARGEST
from gatewatch.jobs.thresholds import GRADIENT_VANISHED

Sample = Mapping[str, Any] | Array

FEATURES: Final = (
    "mean_activation",
    "std_activation",
    "entropy",
    "zero_crossing_rate",
    "saturation",
    "mean_gradient",
    "var_gradient",
)
_DECIMALS: Final = 4
"""Activations are rounded to these before they are counted, lest rounding of single precision decides on which side of
zero, or of the edge of a bin, a constant lies."""


class Observed(NamedTuple):
    """What is seen of a sample.

    Attributes:
        row: (F,), its features; (0,) where no activation is finite.
        masked: the share of steps at which all units are NaN.
        not_finite: whether any other value is not finite.
    """

    row: Array
    masked: float
    not_finite: bool


def observe(sample: Sample, *, required: bool = True) -> Observed:
    """Look at a sample.

    Args:
        sample: see `AnomalyDetector`.
        required: whether an activation must be finite.

    Raises:
        ValueError: the sample has no activations, or none that is finite.
        TypeError: its activations or gradients are no numbers.
    """
    given = sample if isinstance(sample, Mapping) else {"activations": sample}
    if "activations" not in given:
        raise ValueError(f"a sample must have 'activations'; this one has {', '.join(map(str, given)) or 'nothing'}")
    with np.errstate(all="ignore"):  # of numbers that single precision, or a cast, makes infinite
        values = _by_time(given["activations"]).astype(np.float64)
        parts = [np.ravel(part) for _, part in iter_arrays(given.get("gradients"), "gradients")]
    gradient = np.concatenate([np.empty(0), *parts])
    finite = np.isfinite(values)
    if not finite.any() and (required or not values.size):
        raise ValueError("the sample's activations hold no finite value")
    masked = np.isnan(values).all(axis=-1)
    not_finite = not (finite.all(axis=-1) | masked).all() or not np.isfinite(gradient).all()
    row = _features(values, gradient[np.isfinite(gradient)]) if finite.any() else np.empty(0)
    return Observed(row, float(masked.mean()), not_finite)


def _features(values: Array, gradient: Array) -> Array:
    """Return the features of (batch, time, units) activations, of which some are finite, and a flat gradient: (F,)."""
    scale = GATES["hidden"].scale
    values = np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), np.nan)
    gradient = np.clip(gradient, -LARGEST, LARGEST) if gradient.size else np.zeros(1)
    level = gate_statistics(values, scale, statistics=(mean_and_std,))
    counted = gate_statistics(values.round(_DECIMALS), scale, statistics=(saturation, entropy, crossings))
    saturated = counted["saturated_low"] + counted["saturated_high"]
    of_values = (level["mean"], level["std"], counted["entropy"], counted["zero_crossing_rate"], saturated)
    return np.array([*of_values, gradient.mean(), gradient.var()], dtype=np.float64)


def rounding(rows: Array) -> Array:
    """Return (F,), how far a feature of normal (samples, F) rows may move by rounding.

    The scale of a feature is 1 for activations, or their size where that is larger; all bits of an entropy; 1 for a
    share; for gradients their root mean square, to which is added what moves nothing in single precision.
    """
    mean, std, *_, mean_gradient, var_gradient = np.abs(rows).max(axis=0)
    level = STILL * max(1.0, mean, std)
    power = STILL * (var_gradient + mean_gradient**2)
    gradient = STILL * math.sqrt(var_gradient + mean_gradient**2) + GRADIENT_VANISHED
    bits = STILL * math.log2(HISTOGRAM_BINS)
    return np.array([level, level, bits, STILL, STILL, gradient, 2 * power + GRADIENT_VANISHED**2])


def _by_time(activations: Any) -> Array:
    """Return activations as one array, (batch, time, units)."""
    parts = [part for _, part in iter_arrays(activations, "activations")]
    if len({part.shape for part in parts}) > 1:
        raise ValueError("activations must be one array; those of several layers are several samples")
    values = np.atleast_2d(np.stack(parts) if parts else np.empty(0))
    return values.reshape(math.prod(values.shape[:-2]), *values.shape[-2:])
