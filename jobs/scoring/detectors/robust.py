"""The robust detector: how many channels of a layer deviate at once, and by how much.

One channel of many always jumps somewhere, so the largest deviation alone proves little; a fault moves several. The
largest must be far out, the second largest less so, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

LIMITS: Final[Mapping[int, float]] = MappingProxyType({1: 10.0, 2: 6.6, 3: 5.5, 4: 5.0, 6: 4.2, 10: 3.3})
"""Rank → what the deviation of that rank, largest first, must exceed. Chosen on healthy runs of `bench.faults`'
develop split with room to spare, and never on those that it is judged on."""
OWN: Final = 3.0
"""A channel that deviates less has no part in it."""


def evidence(deviations: Array, layers: int | NDArray[np.integer[Any]] = 1) -> Array:
    """How far the deviations of a layer exceed their limits, whichever rank does most: above 1 they do.

    Args:
        deviations: (n, C), of the layer's channels, signed; NaN counts as none.
        layers: how many are looked at side by side, or (n,), how many at each capture. The largest of so many is
            larger by chance: for normal deviations the square of a limit grows by 2 ln(layers).

    Returns:
        (n,).
    """
    sizes = np.abs(np.nan_to_num(deviations))
    ordered = -np.sort(-sizes, axis=1)
    found = np.zeros(len(sizes))
    for rank, limit in LIMITS.items():
        if rank <= ordered.shape[1]:
            found = np.maximum(found, ordered[:, rank - 1] / np.sqrt(limit**2 + 2 * np.log(layers)))
    return found
