"""How far a batch is from what was fed before: the energy distance of its sequences to a reservoir of earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from gatewatch.collector.arrays import Array, Mask
from gatewatch.collector.feed.measures import FeedSample, last_values

SIZE: Final = 256
"""Sequences that the reservoir holds."""
FEWEST: Final = 32
"""Sequences in the reservoir, below which there is no distance."""
RECENT: Final = 16
"""A distance is taken of so many sequences at least: of smaller batches the latest ones together."""
_MOST_FEATURES: Final = 32
_FARTHEST: Final = 20.0
"""Robust deviations: farther is not told apart, so that one outlier does not decide."""
_NORMAL_IQR: Final = 1.349
"""Interquartile range of a normal distribution with deviation 1."""


class FeedReservoir:
    """A uniform sample of the sequences that were seen so far, each by its descriptors (Vitter 1985, algorithm R).

    Its random numbers are its own, from a fixed seed: the same feed gives the same distances.

    Attributes:
        latest: descriptors of the batch that `distance` was asked for last, (N, D); None where it had none.
        distance_of: returns how far descriptors, (M, D), are from those before it; None where there are too few.
    """

    def __init__(self) -> None:
        self._begin(0)

    def _begin(self, features: int) -> None:
        self._random = np.random.default_rng(0)
        self._kept: Array | None = None
        self._recent: Array | None = None
        self._features, self._added = features, 0
        self.latest: Array | None = None
        self.distance_of: Callable[[Array], float] | None = None

    def distance(self, sample: FeedSample) -> float | None:
        """Return how far a batch is from those before it, and count it among them for the next.

        Of a batch with fewer than 16 sequences it is that of the latest 16. There is none until there are 32 earlier
        sequences; where the number of features changes, it begins anew.
        """
        features = sample.values.shape[2]
        self.latest = self.distance_of = None
        if not features or not len(sample.values):
            return None
        if features != self._features:
            self._begin(features)
        self.latest = new = describe_sequences(sample.values, sample.mask)
        recent = new if self._recent is None else np.concatenate([self._recent, new])
        earlier = max(0, len(recent) - max(RECENT, len(new)))
        self._add(recent[:earlier])
        self._recent = recent[earlier:]
        if self._kept is None or len(self._kept) < FEWEST:
            return None
        self.distance_of = _DistanceTo(self._kept)
        return None if len(self._recent) < RECENT else self.distance_of(self._recent)

    def _add(self, sequences: Array) -> None:
        if not len(sequences):
            return
        kept = sequences[:0] if self._kept is None else self._kept
        room = SIZE - len(kept)
        self._kept = np.concatenate([kept, sequences[:room]])
        numbers = self._added + np.arange(len(sequences))[room:]
        self._added += len(sequences)
        if numbers.size:
            for place, row in zip(self._random.integers(0, numbers + 1), sequences[room:], strict=True):
                if place < SIZE:
                    self._kept[place] = row


def describe_sequences(values: Array, mask: Mask | None = None) -> Array:
    """Return the descriptors of each sequence, (B, D): of each feature, at most 32 of them, evenly spaced.

    Mean, mean size, root of the mean square, largest size, last value, mean size of the step from one position to the
    next, and lag-1 autocorrelation. What cannot be had, as of a sequence that does not move, is 0.

    Args:
        values: (B, T, F).
        mask: (B, T), False where a position is padding.
    """
    features = values.shape[2]
    chosen = values
    if features > _MOST_FEATURES:
        chosen = values[:, :, np.arange(_MOST_FEATURES) * features // _MOST_FEATURES]
    valid = np.isfinite(chosen)
    if mask is not None:
        valid &= mask[:, :, None]
    with np.errstate(over="ignore"):
        x = np.where(valid, chosen, 0).clip(-1e150, 1e150).astype(np.float64)
    count = np.maximum(valid.sum(axis=1), 1)
    size = np.abs(x)
    mean, square = x.sum(axis=1) / count, np.einsum("btf,btf->bf", x, x)
    apart = np.where(valid, x - mean[:, None], 0)
    squares = np.einsum("btf,btf->bf", apart, apart)
    products = np.einsum("btf,btf->bf", apart[:, :-1], apart[:, 1:])
    moves = squares > 1e-24 * square
    pairs = valid[:, 1:] & valid[:, :-1]
    steps = np.where(pairs, np.abs(np.diff(x, axis=1)), 0).sum(axis=1) / np.maximum(pairs.sum(axis=1), 1)
    last = last_values(x, mask)
    parts = [
        mean,
        size.sum(axis=1) / count,
        np.sqrt(square / count),
        size.max(axis=1),
        np.nan_to_num(last),
        steps,
        np.divide(products, squares, out=np.zeros_like(mean), where=moves),
    ]
    return np.concatenate(parts, axis=1)


def energy_distance(x: Array, y: Array, within_y: float | None = None) -> float:
    """Return the energy distance of two samples as a share: (2·E|X−Y| − E|X−X'| − E|Y−Y'|) / (2·E|X−Y|).

    0 where both are of one distribution, 1 at most (Székely & Rizzo 2013, "Energy statistics", the energy coefficient).
    The means within a sample are over pairs of different members, so that the size of a sample does not move it; by
    chance it is a little below 0 as often as above.

    Args:
        x: (N, D), N of at least 2.
        y: (M, D), likewise.
        within_y: what `mean_within(y)` returns, where it is known.
    """
    between = _distances(x, y).mean()
    within = mean_within(x) + (mean_within(y) if within_y is None else within_y)
    return float(1 - within / (2 * between)) if between > 0 else 0.0


def mean_within(x: Array) -> float:
    """Return the mean distance between two different members of a sample, (N, D)."""
    return float(_distances(x, x).sum() / (len(x) * (len(x) - 1)))


def _distances(x: Array, y: Array) -> Array:
    squares = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1)[None] - 2 * (x @ y.T)
    distances: Array = np.sqrt(np.maximum(squares, 0))
    if x is y:
        np.fill_diagonal(distances, 0)
    return distances


class _DistanceTo:
    """The energy distance to a fixed sample, both in robust deviations of that sample from its median."""

    def __init__(self, kept: Array) -> None:
        low, middle, high = np.percentile(kept, [25, 50, 75], axis=0)
        scale = (high - low) / _NORMAL_IQR
        spread = np.abs(kept - middle).mean(axis=0)
        for other in (spread, np.abs(middle), np.ones_like(middle)):  # of what is the same in most sequences, or in all
            scale = np.where(scale > 0, scale, other)
        self._middle, self._scale = middle, scale
        self._kept = self._scaled(kept)
        self._within = mean_within(self._kept)

    def __call__(self, new: Array) -> float:
        return energy_distance(self._scaled(new), self._kept, self._within)

    def _scaled(self, one: Array) -> Array:
        clipped: Array = np.clip((one - self._middle) / self._scale, -_FARTHEST, _FARTHEST)
        return clipped
