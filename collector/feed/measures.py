"""Statistics of what is fed to a network: pure functions, arrays in, numbers out.

Notation: B sequences of T positions and F features. Masked positions are left out of everything; values that are not
finite are counted, and everything else is taken over the finite rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.arrays import Array, Mask

FEWEST_FOR_CORRELATION: Final = 8
"""Sequences: of fewer the largest of several correlations is near 1 by chance."""
FEWEST_POSITIONS: Final = 3
"""Of two positions the autocorrelation is -1/2 whatever they are, since their own mean is removed."""
_ROUNDING: Final = 2.0**-52


@dataclass(frozen=True, slots=True)
class FeedSample:
    """A batch, or as much of one as is looked at.

    Attributes:
        values: (B, T, F), of floating numbers; F may be 0, where there are only ids.
        mask: (B, T), False where a position is padding; None where there is none.
        targets: (B, K); None where there are none.
        others: arrays of B rows that tell sequences apart, but are no quantities: ids into an embedding.
    """

    values: Array
    mask: Mask | None = None
    targets: Array | None = None
    others: tuple[NDArray[Any], ...] = ()

    def has_inputs_of(self, other: FeedSample) -> bool:
        """Return whether the inputs of both are equal, NaN to NaN; targets do not count."""
        if len(self.others) != len(other.others) or (self.mask is None) != (other.mask is None):
            return False
        pairs = [(self.mask, other.mask)] if self.mask is not None and other.mask is not None else []
        return np.array_equal(self.values, other.values, equal_nan=True) and all(
            np.array_equal(own, its) for own, its in [*pairs, *zip(self.others, other.others, strict=True)]
        )


@dataclass(frozen=True, slots=True)
class FeedMeasures:
    """What a batch is like.

    Attributes:
        stats: the fields of `feed_stats`, `distance` and `step` left out.
        features: statistic → (F,), NaN where a feature has none.
    """

    stats: Mapping[str, float | int]
    features: Mapping[str, Array]


def measure_feed(sample: FeedSample) -> FeedMeasures:
    """Return what a batch is like: of the whole, and by feature.

    - nan_share, inf_share: of the values;
    - targets_not_finite: share of the targets that are NaN or infinite;
    - constant_features: how many features have one value everywhere, where they have more than one place;
    - clipped_share: share of the values that are at their feature's largest or smallest value, where several are. A
      feature that has no value in between (a flag) has no clip;
    - lag1: median over the features of `lag1_by_feature`;
    - distinct_share: distinct sequences, of all;
    - target_correlation: the largest of `target_correlations`;
    - features, sequences, positions: how many were looked at.

    By feature: mean, std (of the population), nan_share, p01, p99 (linear between the two nearest values), lag1,
    target_correlation.
    """
    values, mask = sample.values, sample.mask
    sequences, positions, count = values.shape
    stats: dict[str, float | int] = {"features": count, "sequences": sequences, "positions": positions}
    if sequences > 1:
        stats["distinct_share"] = distinct_share(sample)
    if sample.targets is not None and sample.targets.size:
        stats["targets_not_finite"] = 1 - float(np.isfinite(sample.targets).mean())
    places = sequences * positions if mask is None else int(mask.sum())
    if not places or not count:
        return FeedMeasures(stats, {})
    valid, nan, infinite = _finite(values, mask)
    stats["nan_share"] = float(nan.sum() / (places * count))
    stats["inf_share"] = float(infinite / (places * count))
    features: dict[str, Array] = {"nan_share": nan / places}
    columns = _Columns.of(values, valid)
    if places > 1:
        stats["constant_features"] = int(columns.constant.sum())
        if (clipped := columns.clipped_share()) is not None:
            stats["clipped_share"] = clipped
    moments = _Moments.of(values, valid, columns)
    features |= {"mean": moments.mean, "std": moments.std, "p01": columns.quantile(0.01), "p99": columns.quantile(0.99)}
    features["lag1"] = moments.lag1
    if np.isfinite(moments.lag1).any():
        stats["lag1"] = float(np.nanmedian(moments.lag1))
    correlations = target_correlations(last_values(values, mask), sample.targets)
    if np.isfinite(correlations).any():
        features["target_correlation"] = correlations
        stats["target_correlation"] = float(np.nanmax(correlations))
    return FeedMeasures(stats, features)


def lag1_by_feature(values: Array, mask: Mask | None = None) -> Array:
    """Return the autocorrelation at lag 1 within sequences, (F,).

    The mean of each sequence is removed, and products and squares are summed over all sequences:
    Σ d[t]·d[t+1] / Σ d[t]², d = x − its sequence's mean. Shuffled positions give -1/T on average, exactly so over all
    orders, and so do white features. A feature that does not move within any sequence has none (NaN), and sequences of
    fewer than three positions do not count.

    Args:
        values: (B, T, F).
        mask: (B, T), False where a position is padding.
    """
    valid, _, _ = _finite(values, mask)
    return _Moments.of(values, valid, _Columns.of(values, valid)).lag1


def distinct_share(sample: FeedSample) -> float:
    """Return how many different sequences there are, as a share of all. Two are the same if every byte is."""
    values = sample.values if sample.mask is None else np.where(sample.mask[:, :, None], sample.values, 0)
    parts = [np.ascontiguousarray(part) for part in (values, *sample.others) if part.size]
    if sample.mask is not None:
        parts.append(np.ascontiguousarray(sample.mask))
    sequences = len(sample.values)
    return len({tuple(part[row].tobytes() for part in parts) for row in range(sequences)}) / sequences


def last_values(values: Array, mask: Mask | None = None) -> Array:
    """Return the values at the last position of each sequence that is no padding, (B, F); NaN of a sequence without."""
    if mask is None:
        return values[:, -1]
    last = mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
    found: Array = np.where(mask.any(axis=1, keepdims=True), values[np.arange(len(values)), last], np.nan)
    return found


def target_correlations(last: Array, targets: Array | None) -> Array:
    """Return the largest |Pearson correlation| of each feature with a target, (F,); NaN where there is none.

    Sequences in which either is not finite are left out. A pair of fewer than 8 sequences, or of which one is
    constant, has none.

    Args:
        last: (B, F), the features at the last position.
        targets: (B, K).
    """
    none: Array = np.full(last.shape[1], np.nan)
    if targets is None or not last.size or not targets.size or len(last) < FEWEST_FOR_CORRELATION:
        return none
    x, is_x = _standardised(last)
    y, is_y = _standardised(targets)
    weights = is_x.T.astype(np.float64)
    n = weights @ is_y
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = x.T @ is_y / n, weights @ y / n
        covariance = x.T @ y / n - mean_x * mean_y
        deviation_x = np.square(x).T @ is_y / n - mean_x**2
        deviation_y = weights @ np.square(y) / n - mean_y**2
        known = (n >= FEWEST_FOR_CORRELATION) & (deviation_x > 1e-12) & (deviation_y > 1e-12)
        correlations = np.where(known, np.abs(covariance) / np.sqrt(deviation_x * deviation_y), -np.inf)
    largest = correlations.max(axis=1)
    return np.where(known.any(axis=1), np.minimum(largest, 1.0), none)


def _standardised(values: Array) -> tuple[Array, Array]:
    """Return columns with mean 0 and deviation 1 over their finite values, 0 elsewhere, and 1.0 where finite."""
    finite: Mask = np.isfinite(values)
    peak = _power_of_two(np.where(finite, np.abs(values), 0).max(axis=0))
    scaled = np.where(finite, values, 0).astype(np.float64) / peak
    count = np.maximum(finite.sum(axis=0), 1)
    centred = np.where(finite, scaled - scaled.sum(axis=0) / count, 0.0)
    deviation = np.sqrt(np.square(centred).sum(axis=0) / count)
    moves = deviation > 8 * len(values) * _ROUNDING
    return np.where(moves, centred / np.where(moves, deviation, 1.0), 0.0), finite.astype(np.float64)


def _finite(values: Array, mask: Mask | None) -> tuple[Mask | None, NDArray[np.intp], int]:
    """Return which values count (None: all), how many are NaN by feature, and how many are infinite."""
    if mask is None and np.isfinite(values).all():
        return None, np.zeros(values.shape[2], np.intp), 0
    valid: Mask = np.isfinite(values)
    nan = np.isnan(values)
    places: Any = True
    if mask is not None:
        places = np.broadcast_to(mask[:, :, None], values.shape)
        valid, nan = valid & places, nan & places
    infinite = int(np.isinf(values[mask] if mask is not None else values).sum())
    return valid, nan.sum(axis=(0, 1)), infinite


def _power_of_two(peaks: Array) -> Array:
    """Return the power of two at or above each size, 1 of 0: to divide by it is exact, and no square overflows."""
    _, exponents = np.frexp(np.where(peaks > 0, peaks, 0.5).astype(np.float64))
    scales: Array = np.ldexp(1.0, np.minimum(exponents, 1023))
    return scales


@dataclass(frozen=True, slots=True)
class _Columns:
    """The values of each feature in order.

    Attributes:
        ordered: (F, B·T), what does not count last, as NaN.
        counts: (F,), how many count.
        low, high: (F,), the smallest and the largest; NaN where none counts.
    """

    ordered: Array
    counts: NDArray[np.intp]
    low: Array
    high: Array

    @classmethod
    def of(cls, values: Array, valid: Mask | None) -> _Columns:
        features = values.shape[2]
        counted = values if valid is None else np.where(valid, values, np.nan)
        ordered = np.sort(counted.reshape(-1, features).T, axis=1)
        counts = np.full(features, ordered.shape[1]) if valid is None else valid.sum(axis=(0, 1))
        high = ordered[np.arange(features), np.maximum(counts - 1, 0)]
        return cls(ordered, counts, ordered[:, 0], high)

    @property
    def constant(self) -> Mask:
        constant: Mask = (self.low == self.high) & (self.counts > 1)
        return constant

    @property
    def scales(self) -> Array:
        """A power of two at or above the largest size of each feature."""
        return _power_of_two(np.nan_to_num(np.maximum(np.abs(self.low), np.abs(self.high))))

    def clipped_share(self) -> float | None:
        """Return the share of the values at an extreme that several have; None where no value counts."""
        counted = int(self.counts.sum())
        if not counted:
            return None
        at_low = (self.ordered == self.low[:, None]).sum(axis=1)
        at_high = (self.ordered == self.high[:, None]).sum(axis=1)
        between = ~self.constant & (self.counts > at_low + at_high)
        clipped = np.where(at_low > 1, at_low, 0) + np.where(at_high > 1, at_high, 0)
        return float(clipped[between].sum() / counted)

    def quantile(self, share: float) -> Array:
        ranks = share * np.maximum(self.counts - 1, 0)
        below = ranks.astype(np.intp)
        rows = np.arange(len(self.counts))
        low = self.ordered[rows, below].astype(np.float64)
        high = self.ordered[rows, np.minimum(below + 1, np.maximum(self.counts - 1, 0))].astype(np.float64)
        part = ranks - below
        quantiles: Array = low * (1 - part) + high * part
        return quantiles


@dataclass(frozen=True, slots=True)
class _Moments:
    """Attributes: mean, std, lag1, each (F,), NaN where a feature has none."""

    mean: Array
    std: Array
    lag1: Array

    @classmethod
    def of(cls, values: Array, valid: Mask | None, columns: _Columns) -> _Moments:
        scales = columns.scales
        scaled = values / scales
        if valid is not None:
            scaled = np.where(valid, scaled, 0.0)
        counts = np.full((len(values), values.shape[2]), values.shape[1]) if valid is None else valid.sum(axis=1)
        own = scaled.sum(axis=1) / np.maximum(counts, 1)
        apart = scaled - own[:, None]
        if valid is not None:
            apart = np.where(valid, apart, 0.0)
        squares = np.einsum("btf,btf->bf", apart, apart)
        total = np.maximum(columns.counts, 1)
        mean = (own * counts).sum(axis=0) / total
        variance = (squares + counts * np.square(own - mean)).sum(axis=0) / total
        variance[columns.constant] = 0.0
        known = columns.counts > 0
        # What rounding alone makes of a sequence that does not move.
        noise = counts * np.square(counts * _ROUNDING * np.abs(own))
        moves = (squares > noise) & (counts >= FEWEST_POSITIONS)
        sums = np.where(moves, squares, 0.0).sum(axis=0)
        products = np.where(moves, np.einsum("btf,btf->bf", apart[:, :-1], apart[:, 1:]), 0.0).sum(axis=0)
        lag1 = np.divide(products, sums, out=np.full(sums.shape, np.nan), where=sums > 0)
        std = np.sqrt(variance) * scales
        return cls(np.where(known, mean * scales, np.nan), np.where(known, std, np.nan), lag1)
