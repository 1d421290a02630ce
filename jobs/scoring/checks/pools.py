"""How large a pool of sequences is, by how many repeat others of their batch.

Of n sequences drawn at random from a pool of N, N (1 - (1 - 1/N)^n) differ on average. How many do is distributed as a
sum of independent events (Vatutin and Mikhailov 1982, "Limit theorems for the number of empty cells in an equiprobable
scheme for group allocation of particles"), and so is the number of repeats. For such sums the bounds of Chernoff and of
Bernstein hold exactly, whatever the numbers.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from gatewatch.jobs.scoring.captures import Array

CHANCE: Final = 1e-4
"""How likely numbers of repeats are at most that count as impossible."""
_LARGEST: Final = 1e9


def smallest_pool(sizes: Array, repeats: float) -> float:
    """Return the size of the smallest pool from which so few repeats are not impossible.

    Args:
        sizes: of the batches, (n,).
        repeats: sequences that repeat others of their batch, of all batches together.
    """
    low, high = 0.0, math.log(_LARGEST)
    for _ in range(50):
        middle = (low + high) / 2
        mean, variance = repeats_of(sizes, math.exp(middle))
        is_too_small = mean > repeats and _exponent(repeats, mean, variance) > -math.log(CHANCE)
        low, high = (middle, high) if is_too_small else (low, middle)
    return math.exp(low)


def is_smaller_pool(sizes: Array, repeats: float, pool: float) -> bool:
    """Return whether so many repeats are impossible in a pool of this size, so that theirs is smaller.

    Args:
        sizes: of the batches, (n,).
        repeats: of all batches together.
        pool: a number of sequences.
    """
    mean, variance = repeats_of(sizes, pool)
    return repeats > mean and _exponent(repeats, mean, variance) > -math.log(CHANCE)


def repeats_of(sizes: Array, pool: float) -> tuple[float, float]:
    """Return the mean and the variance of the number of repeats in batches drawn from a pool."""
    pool = max(pool, 1.0)
    missed = _power(1 / pool, sizes)  # that a certain sequence is not drawn
    missed_both = _power(2 / pool, sizes)
    means = sizes - pool * (1 - missed)
    # N p + N (N-1) q - N² p², with what cancels written together.
    variances = pool * (missed - missed_both) + pool**2 * (missed_both - missed**2)
    return float(np.maximum(means, 0.0).sum()), float(np.maximum(variances, 0.0).sum())


def _power(share: float, sizes: Array) -> Array:
    """Return (1 - share)^sizes, 0 for a share of 1 and more."""
    return np.exp(sizes * math.log1p(-share)) if share < 1 else np.zeros(len(sizes))


def _exponent(count: float, mean: float, variance: float) -> float:
    """Return a bound of how unlikely such a count, or one further from the mean, is: e^-x at most."""
    chernoff = mean - count + (count * math.log(count / mean) if count > 0 and mean > 0 else 0.0)
    away = abs(count - mean)
    bernstein = away**2 / (2 * (variance + away / 3)) if away > 0 else 0.0
    return max(math.inf if mean <= 0 < count else chernoff, bernstein)
