"""What is scored: not where a channel is, but how far it went from where it was going.

A network that learns moves, so levels say little: a forest on levels calls nearly every healthy capture abnormal.
Each channel is forecast from its own recent past by a robust line (Theil 1950, Sen 1968), and the distance from that
forecast is measured in multiples of the distances that are usual for the channel. A capture that is far off is not
learned from, so a fault stays visible while it lasts; the forecast grows less certain the older it is, as that of a
random walk does, so a new normal is accepted in the end, a small step sooner than a large one.

A learning rate that falls and rises is no fault, so two things are allowed for. What says how fast the network learns
(`channels.PACES`) deviates only beyond the range that it has had in this run: a warm restart goes back to a pace that
was there before. And what moves with the weights (`channels.LEVELS`) may move as much faster as they do.

All is causal: what is said of a capture depends on it and on earlier ones alone, and `Memory` is all of those that
is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.signals import FLOORS, LEVELS, PACES, RELATIVE, Channel

Array = NDArray[np.floating[Any]]

REFERENCE: Final = 8
"""Captures that the line is drawn through."""
SMOOTHED: Final = 3
"""The median of so many newest captures is what is compared: one capture alone raises nothing."""
HISTORY: Final = 64
"""Captures whose deviations say what is usual."""
SETTLED: Final = 5
"""Captures that pass before what is new counts as seen before: so long a pace beyond its range stays one."""
LEARNED_FROM: Final = 8.0
"""A capture further off than this many usual deviations is not learned from."""
WARM_UP: Final = 32
"""The first captures of a run and phase, which a detector learns from; they get no score."""
_FEWEST: Final = 4
_TINY: Final = 1e-12
_MIDDLE: Final = (SMOOTHED - 1) / 2
"""How many captures before the newest a median of them stands for."""


@dataclass(slots=True)
class Memory:
    """What is remembered of C channels between two calls of `deviations`.

    Attributes:
        names: the channels.
        count: captures seen.
        values: (up to SMOOTHED, C), the newest captures.
        learned: alike, which of them may be learned from.
        usual: (up to HISTORY, C), the newest distances from the forecast; NaN of what was not learned from.
        at, reference: (REFERENCE, C), numbers and values of the captures that the line goes through, newest last.
        known: (C,), how many of those there are.
        low, high: (C,), the range of the medians that were not far off; one odd capture widens it by nothing.
        medians: (up to SETTLED, C), the newest of those, which do not widen it yet; NaN where one was far off.
        speed: (up to HISTORY,), the size of the updates at the newest captures, where it is not known that of the
            capture before; 1 before the first that is known.
    """

    names: tuple[Channel, ...] = ()
    count: int = 0
    values: Array = field(default_factory=lambda: np.empty((0, 0)))
    learned: NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), dtype=bool))
    usual: Array = field(default_factory=lambda: np.empty((0, 0)))
    at: Array = field(default_factory=lambda: np.zeros((REFERENCE, 0)))
    reference: Array = field(default_factory=lambda: np.zeros((REFERENCE, 0)))
    known: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    low: Array = field(default_factory=lambda: np.empty(0))
    high: Array = field(default_factory=lambda: np.empty(0))
    medians: Array = field(default_factory=lambda: np.empty((0, 0)))
    speed: Array = field(default_factory=lambda: np.empty(0))

    @property
    def told(self) -> set[Channel]:
        """The channels of which a value was known."""
        known = (self.known > 0) | np.isfinite(self.values).any(axis=0)
        return {name for name, one in zip(self.names, known, strict=True) if one}

    def widen(self, names: Iterable[Channel]) -> None:
        """Make room for the channels that are new."""
        here = set(self.names)
        new = tuple(name for name in names if name not in here)
        self.names += new
        for name, filler in (
            ("values", np.nan),
            ("learned", False),
            ("usual", np.nan),
            ("at", 0.0),
            ("reference", 0.0),
            ("known", 0),
            ("low", np.inf),
            ("high", -np.inf),
            ("medians", np.nan),
        ):
            old = getattr(self, name)
            room = np.full((*old.shape[:-1], len(new)), filler, dtype=old.dtype)
            setattr(self, name, np.concatenate([old, room], axis=-1))


class Deviations(NamedTuple):
    """What is said of n captures of C channels: each (n, C), NaN where it is not known.

    Attributes:
        usual: how far from the forecast, signed, in multiples of what is usual for the channel.
        value: the value itself.
        before: the median of the captures that the forecast was made from.
        high: the largest median of `SMOOTHED` captures until then that was not far off.
    """

    usual: Array
    value: Array
    before: Array
    high: Array


def deviations(channels: Mapping[Channel, Array], memory: Memory) -> Deviations:
    """How far each capture is from the forecast, signed, in multiples of what is usual for the channel.

    Args:
        channels: each (n,), the captures that follow those which `memory` has seen.
        memory: of the captures before; it is moved on.

    Returns:
        Of the channels of `memory.names`, in their order.
    """
    memory.widen(channels)
    size = len(next(iter(channels.values()), ()))
    none = np.full(size, np.nan)
    new = np.stack([channels.get(name, none) for name in memory.names], axis=1)
    kinds = _kinds(memory.names)
    values = np.concatenate([memory.values, new])
    learned = np.concatenate([memory.learned, np.isfinite(new)])
    usual = np.concatenate([memory.usual, np.full(new.shape, np.nan)])
    medians = np.concatenate([memory.medians, np.full(new.shape, np.nan)])
    speed = np.concatenate([memory.speed, np.ones(size)])
    result, before, high = (np.full(new.shape, np.nan) for _ in range(3))
    for k in range(size):
        number = memory.count + k
        here, past, settled = len(memory.values) + k, len(memory.usual) + k, len(memory.medians) + k
        if settled >= SETTLED:
            memory.low = np.fmin(memory.low, medians[settled - SETTLED])
            memory.high = np.fmax(memory.high, medians[settled - SETTLED])
        if here < SMOOTHED:
            continue
        _learn(memory, values[here - SMOOTHED], learned[here - SMOOTHED], number - SMOOTHED)
        middle = np.median(values[here - SMOOTHED + 1 : here + 1], axis=0)
        now = _speed(middle, memory, kinds)
        speed[past] = now if now is not None else speed[past - 1]
        ready = np.flatnonzero(memory.known >= REFERENCE)
        if not ready.size:
            continue
        known = slice(max(0, past - HISTORY), past - SMOOTHED + 1)
        recent = usual[known, ready], speed[known] / speed[past]
        off, z = _judged(memory, ready, kinds.of(ready), middle[ready], recent, number)
        result[k, ready] = z
        before[k, ready], high[k] = np.median(memory.reference[:, ready], axis=0), memory.high
        with np.errstate(invalid="ignore"):
            near = ~(np.abs(z) > LEARNED_FROM) & np.isfinite(off)
        learned[here, ready] &= near
        usual[past, ready] = np.where(learned[here, ready], off, np.nan)
        medians[settled, ready] = np.where(learned[here, ready], middle[ready], np.nan)
    memory.count += size
    memory.values, memory.learned = values[-SMOOTHED:], learned[-SMOOTHED:]
    memory.usual, memory.speed, memory.medians = usual[-HISTORY:], speed[-HISTORY:], medians[-SETTLED:]
    return Deviations(result, new, before, high)


class _Kinds(NamedTuple):
    """What is known of each channel by its feature: (C,)."""

    floors: Array
    relative: NDArray[np.bool_]
    pace: NDArray[np.bool_]
    level: NDArray[np.bool_]
    update: NDArray[np.bool_]

    def of(self, chosen: NDArray[np.int64]) -> _Kinds:
        return _Kinds(
            self.floors[chosen], self.relative[chosen], self.pace[chosen], self.level[chosen], self.update[chosen]
        )


def _kinds(names: Sequence[Channel]) -> _Kinds:
    features = [name.feature for name in names]
    relative, pace, level, update = (
        np.array([feature in kind for feature in features], dtype=bool)
        for kind in (RELATIVE, PACES, LEVELS, {"update_ratio"})
    )
    return _Kinds(np.array([FLOORS[feature] for feature in features]), relative, pace, level, update)


def _learn(memory: Memory, values: Array, learned: NDArray[np.bool_], number: int) -> None:
    """Take a capture into the line of the channels that may learn from it."""
    new = np.flatnonzero(learned)
    for kept, newest in ((memory.at, np.full(len(values), float(number))), (memory.reference, values)):
        kept[:-1, new] = kept[1:, new]
        kept[-1, new] = newest[new]
    memory.known[new] += 1


def _speed(middle: Array, memory: Memory, kinds: _Kinds) -> float | None:
    """The size of the updates, no larger than it was before in this run: that would be for an alarm to say. None where
    it is not known, as of a capture between two steps."""
    rates = np.minimum(middle, np.maximum(memory.high, memory.low))[kinds.update]
    rates = rates[np.isfinite(rates)]
    return float(10 ** np.median(rates)) if rates.size else None


def _judged(
    memory: Memory,
    ready: NDArray[np.int64],
    kinds: _Kinds,
    middle: Array,
    recent: tuple[Array, Array],
    number: int,
) -> tuple[Array, Array]:
    """The distances from the forecast, and the same in multiples of what is usual: NaN where that is not known."""
    at, reference = memory.at[:, ready], memory.reference[:, ready]
    age = number - _MIDDLE - at[-1]
    off = middle - _line(at, reference, np.minimum(age, REFERENCE))
    usual, speed = recent
    known, spread = _usual(np.abs(usual))
    _, at_this_speed = _usual(np.abs(usual) / speed[:, None])
    spread = np.where(kinds.level, np.maximum(spread, at_this_speed), spread)
    floors = np.where(kinds.relative, kinds.floors * np.median(np.abs(reference), axis=0) + _TINY, kinds.floors)
    uncertainty = np.sqrt(1 + np.maximum(0, age - 2) / REFERENCE)
    beyond = np.maximum(memory.low[ready] - middle, middle - memory.high[ready])
    off = np.where(kinds.pace & (beyond < floors), 0.0 * off, off)
    z = off / (np.maximum(spread, floors) * uncertainty)
    return off, np.where(known >= _FEWEST, z, np.nan)


def _usual(distances: Array) -> tuple[NDArray[np.int64], Array]:
    """How many distances of each channel are known, and their median as a standard deviation; 0 where none is."""
    known = np.isfinite(distances).sum(axis=0)
    if not len(distances):
        return known, np.zeros(distances.shape[1])
    ordered = np.sort(distances, axis=0)  # NaN comes last
    low, high = np.maximum(known - 1, 0) // 2, np.minimum(known // 2, len(distances) - 1)
    columns = np.arange(distances.shape[1])
    median = (ordered[low, columns] + ordered[high, columns]) / 2
    return known, np.where(known > 0, 1.4826 * median, 0.0)


def _line(at: Array, values: Array, ahead: Array) -> Array:
    """The robust line through (R, C) moments and values, `ahead` captures past the last moment."""
    first, second = np.triu_indices(len(at), 1)
    slope = np.median((values[second] - values[first]) / (at[second] - at[first]), axis=0)
    level = np.median(values - slope * (at - at[-1]), axis=0)
    line: Array = level + slope * ahead
    return line
