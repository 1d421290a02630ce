"""Residuals: how far each signal is from its forecast, in multiples of its usual distance.

The levels of a network change while it learns, so they say little: a forest on levels calls nearly every healthy
capture abnormal. Each signal is forecast from its own recent past by a robust line (Theil 1950, Sen 1968), and the
distance from that forecast is divided by the distances that are usual for the signal. The forecast does not learn from
a capture that is far from it, so a fault stays visible while it lasts. The uncertainty of a forecast grows with its
age, as that of a random walk does. So a new normal is accepted in the end, a small step sooner than a large one.

A learning rate that falls and rises is no fault, so there are two exceptions. A signal for the speed of learning
(`RATE_SIGNALS`) has a residual only outside its range in this run: a warm restart returns to an earlier rate. A signal
that changes with the weights (`LEVEL_SIGNALS`) may change faster when the weights do.

Residuals are causal: each depends only on its capture and on earlier ones, which `RollingState` summarises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

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
LEARNED_FROM: Final = 8.0
"""The forecast does not learn from a capture whose residual is larger."""
WARM_UP: Final = 32
"""The first captures of a run and phase: detectors learn from them, and give them no score."""
_FEWEST: Final = 4
_TINY: Final = 1e-12
_OF_ZERO: Final = 1e-7
"""The smallest floor of a relative signal whose range has 0 in it: its size says nothing of how it is rounded. The
spacing of single precision is 1.2e-7 (IEEE 754)."""
_MIDDLE: Final = (SMOOTHED - 1) / 2
"""How many captures before the newest the median of `SMOOTHED` captures lies, on average."""

_FILLERS: Final = {"values": np.nan, "distances": np.nan, "medians": np.nan, "low": np.inf, "high": -np.inf}
"""What the column of a new signal is filled with in the arrays of `RollingState`; in those not named here, 0."""


@dataclass(slots=True)
class RollingState:
    """The state of C signals that `z_scores` keeps from one call to the next.

    Attributes:
        keys: the signals.
        count: number of captures so far.
        values: (up to SMOOTHED, C), the newest captures.
        learnable: (up to SMOOTHED, C), whether the forecast may learn from these captures.
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
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("keys", "count")}

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
        captures = {
            "values": SMOOTHED,
            "learnable": SMOOTHED,
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


class Residuals(NamedTuple):
    """Values and residuals of n captures of C signals: (n, C) each, NaN where there is none.

    Attributes:
        z: signed distance from the forecast, in multiples of the signal's usual distance.
        value: the value itself.
        before: the median of the captures that the line of the forecast was fitted to.
        high: the upper end of the signal's range when the capture was scored; see `RollingState.high`.
    """

    z: Array
    value: Array
    before: Array
    high: Array


def z_scores(signals: Mapping[SignalKey, Array], state: RollingState) -> Residuals:
    """Return how far each capture is from its forecast, in multiples of the signal's usual distance.

    Args:
        signals: each (n,), the captures that follow those of `state`.
        state: state after the captures before; it is updated to include the new ones.

    Returns:
        The residuals of the signals `state.keys`, in their order.
    """
    state.widen(signals)
    size = len(next(iter(signals.values()), ()))
    none = np.full(size, np.nan)
    new = np.stack([signals.get(key, none) for key in state.keys], axis=1)
    kinds = _kinds(state.keys)
    values = np.concatenate([state.values, new])
    learnable = np.concatenate([state.learnable, np.isfinite(new)])
    distances = np.concatenate([state.distances, np.full(new.shape, np.nan)])
    medians = np.concatenate([state.medians, np.full(new.shape, np.nan)])
    speed = np.concatenate([state.speed, np.ones(size)])
    z, before, high = (np.full(new.shape, np.nan) for _ in range(3))
    for k in range(size):
        number = state.count + k
        here, past, settled = len(state.values) + k, len(state.distances) + k, len(state.medians) + k
        if settled >= SETTLED:
            state.low = np.fmin(state.low, medians[settled - SETTLED])
            state.high = np.fmax(state.high, medians[settled - SETTLED])
        if here < SMOOTHED:
            continue
        _learn(state, values[here - SMOOTHED], learnable[here - SMOOTHED], number - SMOOTHED)
        middle = np.median(values[here - SMOOTHED + 1 : here + 1], axis=0)
        now = _speed(middle, state, kinds)
        speed[past] = now if now is not None else speed[past - 1]
        ready = np.flatnonzero(state.learned >= REFERENCE)
        if not ready.size:
            continue
        window = slice(max(0, past - HISTORY), past - SMOOTHED + 1)
        recent = distances[window, ready], speed[window] / speed[past]
        off, off_z = _residuals(state, ready, kinds[ready], middle[ready], recent, number)
        z[k, ready] = off_z
        before[k, ready], high[k] = np.median(state.reference[:, ready], axis=0), state.high
        with np.errstate(invalid="ignore"):
            near = ~(np.abs(off_z) > LEARNED_FROM) & np.isfinite(off)
        learnable[here, ready] &= near
        distances[past, ready] = np.where(learnable[here, ready], off, np.nan)
        medians[settled, ready] = np.where(learnable[here, ready], middle[ready], np.nan)
    state.count += size
    state.values, state.learnable = values[-SMOOTHED:], learnable[-SMOOTHED:]
    state.distances, state.speed, state.medians = distances[-HISTORY:], speed[-HISTORY:], medians[-SETTLED:]
    return Residuals(z, new, before, high)


def _kinds(keys: Sequence[SignalKey]) -> NDArray[np.void]:
    """Return (C,), floor and kind of each signal."""
    rows = [SIGNALS[key.signal] for key in keys]
    return np.array(
        [
            (row.floor, row.relative, row.nothing, row.kind == "rate", row.kind == "level", row.name == "update_ratio")
            for row in rows
        ],
        dtype=[
            *(("floor", float), ("relative", bool), ("nothing", float)),
            *(("rate", bool), ("level", bool), ("update", bool)),
        ],
    )


def _learn(state: RollingState, values: Array, learnable: NDArray[np.bool_], number: int) -> None:
    """Add a capture to the line of the signals that may learn from it."""
    new = np.flatnonzero(learnable)
    for kept, newest in ((state.at, np.full(len(values), float(number))), (state.reference, values)):
        kept[:-1, new] = kept[1:, new]
        kept[-1, new] = newest[new]
    state.learned[new] += 1


def _speed(middle: Array, state: RollingState, kinds: NDArray[np.void]) -> float | None:
    """Return the size of the updates, capped at the largest earlier one in this run: a larger update must cause an
    alarm. None where no update is recorded, as at a capture between two steps."""
    rates = np.minimum(middle, np.maximum(state.high, state.low))[kinds["update"]]
    rates = rates[np.isfinite(rates)]
    return float(10 ** np.median(rates)) if rates.size else None


def _residuals(
    state: RollingState,
    ready: NDArray[np.int64],
    kinds: NDArray[np.void],
    middle: Array,
    recent: tuple[Array, Array],
    number: int,
) -> tuple[Array, Array]:
    """Return the distances from the forecast, and their multiples of the usual distance: NaN where there is none."""
    at, reference = state.at[:, ready], state.reference[:, ready]
    age = number - _MIDDLE - at[-1]
    least = np.where(np.median(reference, axis=0) <= kinds["nothing"], kinds["nothing"], -np.inf)
    reference, middle = np.maximum(reference, least), np.maximum(middle, least)
    off = middle - _line(at, reference, np.minimum(age, REFERENCE))
    distances, speed = recent
    count, spread = _usual(np.abs(distances))
    _, at_this_speed = _usual(np.abs(distances) / speed[:, None])
    spread = np.where(kinds["level"], np.maximum(spread, at_this_speed), spread)
    floors = kinds["floor"]
    of_size = floors * np.median(np.abs(reference), axis=0) + _TINY
    around_zero = (state.low[ready] <= 0) & (state.high[ready] >= 0)
    of_size = np.where(around_zero, np.maximum(of_size, _OF_ZERO), of_size)
    floors = np.where(kinds["relative"], of_size, floors)
    uncertainty = np.sqrt(1 + np.maximum(0, age - 2) / REFERENCE)
    beyond = np.maximum(state.low[ready] - middle, middle - state.high[ready])
    off = np.where(kinds["rate"] & (beyond < floors), 0.0 * off, off)
    z = off / (np.maximum(spread, floors) * uncertainty)
    return off, np.where(count >= _FEWEST, z, np.nan)


def _usual(distances: Array) -> tuple[NDArray[np.int64], Array]:
    """Return how many distances of each signal are finite, and their median as a standard deviation; 0 if none is."""
    count = np.isfinite(distances).sum(axis=0)
    if not len(distances):
        return count, np.zeros(distances.shape[1])
    ordered = np.sort(distances, axis=0)  # NaN comes last
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(distances) - 1)
    columns = np.arange(distances.shape[1])
    median = (ordered[low, columns] + ordered[high, columns]) / 2
    return count, np.where(count > 0, 1.4826 * median, 0.0)


def _line(at: Array, values: Array, ahead: Array) -> Array:
    """Return (C,), the robust line through (R, C) times and values, `ahead` captures past the last time."""
    first, second = np.triu_indices(len(at), 1)
    slope = np.median((values[second] - values[first]) / (at[second] - at[first]), axis=0)
    level = np.median(values - slope * (at - at[-1]), axis=0)
    return np.asarray(level + slope * ahead)
