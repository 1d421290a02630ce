"""Statistics of one gate at one capture: pure functions, arrays in, numbers out.

Notation: B sequences of T steps and U units. Masked steps are left out of everything; values that are not finite are
counted, and everything else is taken over the finite rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.arrays import Array, Mask
from gatewatch.collector.cells import GateScale
from gatewatch.collector.schema import HISTOGRAM_BINS, HISTOGRAM_FIELDS, MAX_PROFILE

DORMANT: Final = 0.025
"""A unit is dormant at or below this share of its layer's mean activity (Sokar et al. 2023, "The Dormant Neuron
Phenomenon in Deep Reinforcement Learning")."""

_QUANTILES: Final = {"p05": 0.05, "p50": 0.50, "p95": 0.95}
_SUBBINS: Final = 200
_FINE_BINS: Final = HISTOGRAM_BINS * _SUBBINS
_SMALLEST_STD: Final = 1e-15  # its square is well above the smallest number of single precision


@dataclass(frozen=True, slots=True)
class GateSample:
    """The activations of one gate at one capture, as the statistics take them.

    Attributes:
        values: (B, T, U), as they are.
        valid: (B, T, U), False where a value is masked or not finite; None where every value counts.
        finite: the values that count, flat, at least one, at least in single precision.
        scale: of the gate.
        fine: how many of them lie in each of many equal bins of the scale.
        binned: in which of these bins each of them lies.
        shares: the share of them in each of the 20 bins of the histogram.
    """

    values: Array
    valid: Mask | None
    finite: Array
    scale: GateScale
    fine: NDArray[np.intp]
    binned: NDArray[np.int32]
    shares: Array

    @classmethod
    def of(cls, values: Array, valid: Mask | None, finite: Array, scale: GateScale) -> GateSample:
        """Count the values into the bins of the scale."""
        finite = finite.astype(np.promote_types(finite.dtype, np.float32), copy=False)  # half cannot count the bins
        width = _FINE_BINS / (scale.high - scale.low)
        with np.errstate(over="ignore"):
            position = (finite - finite.dtype.type(scale.low)) * finite.dtype.type(width)
        np.clip(position, 0, _FINE_BINS - 1, out=position)
        binned = position.astype(np.int32)
        fine = np.bincount(binned, minlength=_FINE_BINS)
        shares = fine.reshape(HISTOGRAM_BINS, _SUBBINS).sum(axis=1) / finite.size
        return cls(values, valid, finite, scale, fine, binned, shares)


Fields = Mapping[str, float | int]
Statistic = Callable[[GateSample], Fields]
"""What is taken of a sample: field of `gate_stats` → its value. Each field has a row in the schema."""


def mean_and_std(sample: GateSample) -> Fields:
    """Return mean and std, of the population."""
    values = sample.finite
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(values.mean(dtype=np.float64))
        std = float(np.sqrt(np.square(values - values.dtype.type(mean)).mean(dtype=np.float64)))
    if not (np.isfinite(mean) and _SMALLEST_STD < std < math.inf):
        peak = _peak(values)  # the squares are beyond a float, or vanish in it
        scaled = values.astype(np.float64) / peak
        mean, std = float(scaled.mean()) * peak, min(float(scaled.std()), 1.0) * peak
    return {"mean": mean, "std": std}


def saturation(sample: GateSample) -> Fields:
    """Return saturated_low and saturated_high, the share of the values beyond the scale's thresholds."""
    finite, scale = sample.finite, sample.scale
    return {
        "saturated_low": float(np.count_nonzero(finite < scale.saturated_low) / finite.size),
        "saturated_high": float(np.count_nonzero(finite > scale.saturated_high) / finite.size),
    }


def entropy(sample: GateSample) -> Fields:
    """Return Shannon's entropy of the histogram, in bits: 0 (all in one bin) to 4.32."""
    shares = sample.shares[sample.shares > 0]
    return {"entropy": abs(float((shares * np.log2(shares)).sum()))}


def crossings(sample: GateSample) -> Fields:
    """Return zero_crossing_rate, the share of the steps in time over which a unit goes past `scale.centre`."""
    return {"zero_crossing_rate": zero_crossing_rate(sample.values, sample.scale.centre, sample.valid)}


def dormancy(sample: GateSample) -> Fields:
    """Return dead_units, how many units have a mean |activation| of at most `DORMANT` of the mean over all units."""
    magnitudes = sample.values if sample.finite.min() >= 0 else np.abs(sample.values)
    activity = _means(magnitudes, (0, 1), sample.valid)  # NaN of a unit without a value, which is not dormant
    mean = _means(activity[np.isfinite(activity)], (0,), None)
    return {"dead_units": int((activity <= DORMANT * mean).sum())}


def quantiles(sample: GateSample) -> Fields:
    """Return p05, p50 and p95, linear between the two nearest values, as numpy's default."""
    below = np.cumsum(sample.fine)
    sorted_bins: dict[int, Array] = {}

    def value(rank: int) -> float:
        bin_ = int(np.searchsorted(below, rank, side="right"))  # so only that bin's values need be sorted
        if bin_ not in sorted_bins:
            sorted_bins[bin_] = np.sort(sample.finite[sample.binned == bin_])
        return float(sorted_bins[bin_][rank - int(below[bin_] - sample.fine[bin_])])

    fields = {}
    last = sample.finite.size - 1
    for name, quantile in _QUANTILES.items():
        rank, share = divmod(quantile * last, 1)
        low, high = value(int(rank)), value(min(int(rank) + 1, last))
        between = low + (high - low) * share
        fields[name] = between if math.isfinite(between) else low * (1 - share) + high * share
    return fields


def histogram(sample: GateSample) -> Fields:
    """Return hist_00…hist_19, the share of the values in 20 equal bins of the scale; what lies beyond in the outer."""
    return dict(zip(HISTOGRAM_FIELDS, sample.shares.tolist(), strict=True))


STATISTICS: Final[Sequence[Statistic]] = (
    mean_and_std,
    saturation,
    entropy,
    crossings,
    dormancy,
    quantiles,
    histogram,
)


def gate_statistics(
    values: Array, scale: GateScale, mask: Mask | None = None, statistics: Sequence[Statistic] = STATISTICS
) -> dict[str, float | int]:
    """Return the fields of `gate_stats` for one gate, `step` and `epoch` left out.

    These are what the statistics give, and nan_count and inf_count, which are all where no value is finite.

    Args:
        values: (B, T, U).
        scale: of this gate.
        mask: (B, T), False where a step was masked; its values do not count as NaN.
        statistics: what is taken of the values.
    """
    valid = _valid(values, mask)
    unmasked = values if mask is None else values[mask]
    finite = values.reshape(-1) if valid is None else values[valid]
    nan_count = int(np.isnan(unmasked).sum()) if finite.size < unmasked.size else 0
    fields: dict[str, float | int] = {}
    if finite.size:
        sample = GateSample.of(values, valid, finite, scale)
        for statistic in statistics:
            fields |= statistic(sample)
    return {**fields, "nan_count": nan_count, "inf_count": unmasked.size - finite.size - nan_count}


def unit_profile(values: Array, mask: Mask | None = None) -> dict[str, float]:
    """Return the fields of `gate_units`: u000… mean activation by unit, or by group of neighbouring units past 64.

    A unit without a finite value has no field.

    Args:
        values: (B, T, U).
        mask: (B, T), False where a step was masked.
    """
    return profile("u", _means(values, (0, 1), _valid(values, mask)))


def time_profile(values: Array, mask: Mask | None = None) -> dict[str, float]:
    """Return the fields of `gate_time`: t000… mean activation by position in the sequence, in at most 64 bins.

    A position where every sequence is masked has no field.

    Args:
        values: (B, T, U).
        mask: (B, T), False where a step was masked.
    """
    return profile("t", _means(values, (0, 2), _valid(values, mask)))


def zero_crossing_rate(values: Array, centre: float = 0.0, valid: Mask | None = None) -> float:
    """Return the share of the steps in time over which a value crosses `centre`; 0 for a single step.

    Args:
        values: (B, T, U).
        centre: what is crossed. A value equal to it counts as below.
        valid: (B, T, U), False where a value is to be left out.
    """
    above = values > centre
    crossed = above[:, 1:] != above[:, :-1]
    if valid is not None:
        crossed = crossed[valid[:, 1:] & valid[:, :-1]]
    return float(np.count_nonzero(crossed) / crossed.size) if crossed.size else 0.0


def grouped(values: Array, most: int = MAX_PROFILE) -> Array:
    """Return at most `most` means of neighbouring values, as equal in size as can be; NaN is left out of them."""
    if values.size <= most:
        return values
    starts = np.arange(most) * values.size // most
    finite = np.isfinite(values)
    count = np.add.reduceat(finite.astype(np.intp), starts)
    peak = _peak(values[finite])
    total = np.add.reduceat(np.where(finite, values / peak, 0), starts)
    means: Array = np.divide(total, count, out=np.full(most, np.nan), where=count > 0) * peak
    return means


def _valid(values: Array, mask: Mask | None) -> Mask | None:
    if mask is None and values.size and np.isfinite(values).all():
        return None
    finite: Mask = np.isfinite(values)
    return finite if mask is None else finite & mask[:, :, None]


def _means(values: Array, axes: tuple[int, ...], valid: Mask | None) -> Array:
    means: Array
    with np.errstate(over="ignore", invalid="ignore"):
        if valid is None:
            means = values.mean(axis=axes, dtype=np.float64)
            counted = np.True_
        else:
            count = valid.sum(axis=axes)
            counted = count > 0
            values = np.where(valid, values, 0)
            total = values.sum(axis=axes, dtype=np.float64)
            means = np.divide(total, count, out=np.full(count.shape, np.nan), where=counted)
    if np.isfinite(means[counted]).all() or not np.isfinite(peak := _peak(values)):
        return means
    # The values are finite and so large that their sum is not.
    return _means(values / peak, axes, valid) * peak


def _peak(values: Array) -> float:
    return float(np.abs(values).max(initial=0)) or 1.0


def profile(letter: str, means: Array) -> dict[str, float]:
    """Return a field for each value, or for each of 64 groups of neighbours: letter and number; NaN has none."""
    return {f"{letter}{i:03d}": mean for i, mean in enumerate(grouped(means).tolist()) if np.isfinite(mean)}
