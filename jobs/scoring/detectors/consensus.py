"""What the detectors say together."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

NEARLY: Final = 0.8
"""A robust score from which on the isolation forest decides."""


def consensus(ruled: Array, robust: Array, forest: Array | None) -> Array:
    """A broken rule is enough, and so is the robust detector; short of that the forest must agree with it.

    Args:
        ruled, robust: (n,), scores.
        forest: (n,), or None where there is none.

    Returns:
        (n,), NaN where neither rule nor robust detector says anything.
    """
    agreed = robust if forest is None else np.fmax(robust, np.minimum(robust / NEARLY, np.nan_to_num(forest)))
    return np.where(np.isfinite(agreed), np.fmax(ruled, agreed), np.where(ruled > 1, ruled, np.nan))
