"""The contract of a check: a statement that is true of a sound training, and what a violation of it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.scoring.signals import MODEL
from gatewatch.jobs.scoring.sources import Source

__all__ = ["DATA", "FEED", "MODEL", "OPTIMIZER", "VIOLATED", "WINDOW", "Check", "shifted", "trailing", "verdicts"]

VIOLATED: Final = 2.0
"""The score of a statement that is either true or not, where it is not."""
WINDOW: Final = 64
"""The most earlier captures that a check may look at."""
DATA: Final = "_data"
"""Stands for the layer in points about what is fed."""
FEED: Final = "feed"
"""Stands for the gate in points about the feed as a whole; those about one input have its name."""
OPTIMIZER: Final = "_optimizer"
"""Stands for the layer in points about the whole optimizer."""


@dataclass(frozen=True, slots=True)
class Check:
    """One statement about a sound training.

    Attributes:
        name: stored as `why_<name>` with the score of a capture that violates it.
        sentence: what a violation means, for people.
        source: where the cause of a violation lies.
        errors: how often a sound training violates it: `never`, where it follows from how the training computes, or
            what the rate is and where it was measured.
        needs: what must have been recorded before it says anything, for people.
        judge: captures → (layer, gate, parameter or subject) → (n,): 0 to 1 where the statement holds, above 1 where
            it is violated, NaN where nothing can be said. A value depends on its capture and on at most `look_back`
            earlier ones, whatever others there are.
        look_back: number of earlier captures that a value depends on.
    """

    name: str
    sentence: str
    source: Source
    errors: str
    needs: str
    judge: Callable[[Captures], Mapping[Pair, Array]]
    look_back: int = 1


def verdicts(violated: NDArray[np.bool_], known: NDArray[np.bool_]) -> Array:
    """Return (n,), the scores of a statement that is either true or not: NaN where that is not known."""
    return np.where(known, np.where(violated, VIOLATED, 0.0), np.nan)


def shifted(values: Array, by: int = 1) -> Array:
    """Return (n,), the value that each capture's predecessor had, or the one `by` captures before; NaN for none."""
    earlier = np.full(len(values), np.nan)
    earlier[by:] = values[:-by] if by else values
    return earlier


def trailing(values: NDArray[np.bool_], captures: int) -> NDArray[np.bool_]:
    """Return (n,), whether any of a capture and the `captures` before it is true."""
    return np.array([values[max(0, k - captures) : k + 1].any() for k in range(len(values))], dtype=bool)
