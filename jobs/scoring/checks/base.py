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

__all__ = [
    "DATA",
    "FEED",
    "MEASURED",
    "MODEL",
    "OPTIMIZER",
    "TARGETS",
    "VIOLATED",
    "WARNING",
    "WINDOW",
    "Check",
    "any_before",
    "any_of_late",
    "just_begun",
    "last_median",
    "previous",
    "up_to",
    "verdicts",
    "windows",
]

VIOLATED: Final = 2.0
"""The score of a statement that is either true or not, where it is not."""
WARNING: Final = 1.0
"""The score of a warning: the largest that is no alarm."""
MEASURED: Final = "none in 86 healthy runs of the benchmark, see docs/detection.md"
"""How often sound trainings violate a statement that holds by experience."""
WINDOW: Final = 64
"""The most earlier captures that a check may look at."""
DATA: Final = "_data"
"""Stands for the layer in points about what is fed."""
FEED: Final = "feed"
"""Stands for the gate in points about the feed as a whole; those about one input have its name."""
TARGETS: Final = "targets"
"""Stands for the gate in points about the targets that are fed."""
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
        alarms: whether a violation is an alarm. If not, it is a warning: its score is `WARNING`, which is no alarm, and
            is stored with its cause.
        times: how many times something is too large or too small where the score is 1; None for a score that is no
            such factor.
    """

    name: str
    sentence: str
    source: Source
    errors: str
    needs: str
    judge: Callable[[Captures], Mapping[Pair, Array]]
    look_back: int = 1
    alarms: bool = True
    times: float | None = None


def verdicts(violated: NDArray[np.bool_], known: NDArray[np.bool_]) -> Array:
    """Return (n,), the scores of a statement that is either true or not: NaN where that is not known."""
    return np.where(known, np.where(violated, VIOLATED, 0.0), np.nan)


def previous(values: Array, recorded: NDArray[np.bool_]) -> Array:
    """Return (n,), the value at the latest capture before each that has a record; NaN where `WINDOW` captures had none.

    Args:
        values: (n,).
        recorded: (n,), whether a capture has a record.
    """
    numbers = np.arange(len(values))
    latest = np.maximum.accumulate(np.where(recorded, numbers, -1))
    before = np.concatenate([[-1], latest[:-1]])
    is_near = (before >= 0) & (numbers - before <= WINDOW)
    return np.where(is_near, values[before], np.nan)


def any_of_late(values: NDArray[np.bool_], captures: int = WINDOW) -> NDArray[np.bool_]:
    """Return (n,), whether any of a capture and of the `captures` before it is true."""
    count = np.concatenate([np.zeros(captures + 1), np.cumsum(values)])
    late: NDArray[np.bool_] = count[captures + 1 :] > count[: len(values)]
    return late


def any_before(values: NDArray[np.bool_], captures: int = WINDOW) -> NDArray[np.bool_]:
    """Return (n,), whether any of the `captures` before each is true, itself left out."""
    return any_of_late(np.concatenate([[False], values])[: len(values)], captures - 1)


def just_begun(violated: NDArray[np.bool_], captures: int = WINDOW) -> NDArray[np.bool_]:
    """Return (n,), whether a capture is a violation and none of the `captures` before it was."""
    begun: NDArray[np.bool_] = violated & ~any_before(violated, captures)
    return begun


def windows(values: Array, captures: int) -> Array:
    """Return (n, captures), for each capture the values of those before it, NaN where there are fewer.

    Args:
        values: (n,).
        captures: how many, the capture itself left out.
    """
    padded = np.concatenate([np.full(captures, np.nan), values])
    return np.lib.stride_tricks.sliding_window_view(padded, captures)[: len(values)]


def up_to(values: Array, before: int) -> Array:
    """Return (n, before + 1), for each capture its own value, last, and those before it, NaN where there are fewer.

    Args:
        values: (n,).
        before: how many, the capture itself left out.
    """
    return np.column_stack([windows(values, before), values])


def last_median(values: Array, captures: int = 3) -> Array:
    """Return (n,), the median of a capture and those just before it; NaN where one of these has no value."""
    return np.median(up_to(values, captures - 1), axis=1)
