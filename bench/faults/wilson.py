"""How far a share of few runs may be off."""

from __future__ import annotations

from math import sqrt
from typing import Final

NORMAL_QUANTILE: Final = 1.959964
"""Of the normal distribution at 0.975: two sides of 2.5 % leave 95 %."""


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share by the score test (Wilson 1927), which holds near 0 and 1 too.

    Args:
        hits: how often it happened, 0 to `trials`.
        trials: how often it could have, at least 1.
    """
    share, z = hits / trials, NORMAL_QUANTILE
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(0.0, middle - half), min(1.0, middle + half)
