"""The rolling state of the signals of one run: what the residuals of later captures need from the earlier ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array
from gatewatch.jobs.scoring.signals import SIGNALS, SignalKey

REFERENCE: Final = 8
"""Captures that the line of the forecast is fitted to."""
SMOOTHED: Final = 3
"""The median of this many newest captures is compared with the forecast: one capture alone changes little."""
HISTORY: Final = 64
"""Captures whose distances from their forecasts define the usual distance."""
SETTLED: Final = 5
"""Captures that pass before a new value widens the range of a signal: until then a rate beyond it has a residual."""
NEWEST: Final = 6
"""The newest captures that say at what pace a signal goes: a jump spoils one of their five steps, or two."""
_FILLERS: Final = {
    "values": np.nan,
    "steps": np.nan,
    "distances": np.nan,
    "medians": np.nan,
    "low": np.inf,
    "high": -np.inf,
}
"""What the column of a new signal is filled with in the arrays of `RollingState`; in those not named here, 0."""
_NO_ARRAYS: Final = ("keys", "count", "settled")


@dataclass(slots=True)
class RollingState:
    """The state of C signals that `z_scores` keeps from one call to the next.

    Attributes:
        keys: the signals.
        count: number of captures so far.
        settled: number of captures of the warm-up; None while it lasts.
        values: (up to NEWEST, C), the newest captures.
        learnable: (up to NEWEST, C), whether the forecast may learn from these captures.
        distances: (up to HISTORY, C), the newest distances from the forecast; NaN where it did not learn from them.
        at, reference: (REFERENCE, C), numbers and values of the captures that the line is fitted to, newest last.
        learned: (C,), number of captures that the forecast has learned from.
        low, high: (C,), the range of the medians that were not far from the forecast; one odd capture does not widen
            it.
        medians: (up to SETTLED, C), the newest medians, which do not widen the range yet; NaN where one was far from
            the forecast.
        speed: (up to HISTORY,), the size of the updates at the newest captures. A capture without updates has the
            value of the capture before; captures before the first update have 1.
    """

    keys: tuple[SignalKey, ...] = ()
    count: int = 0
    settled: int | None = None
    values: Array = field(default_factory=lambda: np.empty((0, 0)))
    learnable: NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), dtype=bool))
    distances: Array = field(default_factory=lambda: np.empty((0, 0)))
    at: Array = field(default_factory=lambda: np.zeros((REFERENCE, 0)))
    reference: Array = field(default_factory=lambda: np.zeros((REFERENCE, 0)))
    learned: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    low: Array = field(default_factory=lambda: np.empty(0))
    high: Array = field(default_factory=lambda: np.empty(0))
    medians: Array = field(default_factory=lambda: np.empty((0, 0)))
    speed: Array = field(default_factory=lambda: np.empty(0))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays, by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _NO_ARRAYS}

    @property
    def observed(self) -> set[SignalKey]:
        """The signals that had a value so far."""
        observed = (self.learned > 0) | np.isfinite(self.values).any(axis=0)
        return {key for key, one in zip(self.keys, observed, strict=True) if one}

    def check(self) -> None:
        """Check that this is a state in which `z_scores` leaves one, as a file may hold another.

        Raises:
            ValueError: it is not.
        """
        signals = len(self.keys)
        if not all(isinstance(part, str) for key in self.keys for part in key) or len(set(self.keys)) != signals:
            raise ValueError("the signals are no signals, or one of them comes twice")
        if unknown := {key.signal for key in self.keys} - SIGNALS.keys():
            raise ValueError(f"there is no signal {min(unknown)!r}")
        if type(self.count) is not int or self.count < 0:
            raise ValueError(f"{self.count!r} is no number of captures")
        if self.settled is not None and not (type(self.settled) is int and 0 <= self.settled <= self.count):
            raise ValueError(f"{self.settled!r} is no length of a warm-up")
        captures = {
            "values": NEWEST,
            "learnable": NEWEST,
            "distances": HISTORY,
            "medians": SETTLED,
            "speed": HISTORY,
        }
        for name, default in RollingState().arrays.items():
            rows = [min(self.count, captures[name])] if name in captures else [*default.shape[:-1]]
            array, shape = getattr(self, name), (*rows, *([] if name == "speed" else [signals]))
            if array.dtype != default.dtype or array.shape != shape:
                raise ValueError(f"{name} are {array.dtype} of shape {array.shape}, not {default.dtype} of {shape}")
        at = self.at[:, self.learned >= REFERENCE]
        if not ((np.diff(at, axis=0) > 0).all() and (self.speed > 0).all()):
            raise ValueError("the captures that a forecast has learned from are not one after the other")

    def widen(self, keys: Iterable[SignalKey]) -> None:
        """Add the signals that are new."""
        present = set(self.keys)
        new = tuple(key for key in keys if key not in present)
        self.keys += new
        for name, old in self.arrays.items():
            if name != "speed":
                room = np.full((*old.shape[:-1], len(new)), _FILLERS.get(name, 0), dtype=old.dtype)
                setattr(self, name, np.concatenate([old, room], axis=-1))
