"""Residuals: how far each signal is from its forecast, in multiples of its usual distance.

The levels of a network change while it learns, so they say little: a forest on levels calls nearly every healthy
capture abnormal. Each signal is forecast from its own recent past by a robust line (Theil 1950, Sen 1968), and the
distance from that forecast is divided by the distances that are usual for the signal. The forecast does not learn from
a capture that is far from it, so a fault stays visible while it lasts. The uncertainty of a forecast grows with its
age, as that of a random walk does. So a new normal is accepted in the end, a small step sooner than a large one.

A learning rate that falls and rises is no fault, so there are two exceptions. A signal for the speed of learning
(`RATE_SIGNALS`) has a residual only outside its range in this run: a warm restart returns to an earlier rate. A signal
that changes with the weights (`LEVEL_SIGNALS`) may change faster when the weights do.

Learning comes in bursts: a network may seem calm for a hundred captures, then learn most of what it will learn within
ten (Saxe, McClelland and Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
networks": each thing is learned along a sigmoid, whose beginning looks like nothing). Nothing that is recorded before a
burst says when it comes; many healthy networks never have one. So two things are done:

- *Pace.* The forecast of a level that is on its way is as uncertain as the way is long until the capture: its usual
  distance is at least `pace` times the captures ahead. A burst gathers pace over several captures, a fault jumps.
- *Warm-up.* It ends when at least `WARM_UP` captures have passed and the levels are settled: fewer than `ON_THE_MOVE`
  of them have a pace that matters beside their usual distance. A learning that is under way is waited for, but for no
  more than `LONGEST_WARM_UP` captures: a run that drifts evenly never settles. Without updates there is no learning to
  wait for, as in a backtest.

What it costs: a fault that moves levels evenly, capture by capture, and nothing else has smaller residuals than before.

Residuals are causal: each depends only on its capture and on earlier ones, which `RollingState` summarises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array
from gatewatch.jobs.scoring.forecast import pace, robust_line, usual_size
from gatewatch.jobs.scoring.rolling_state import HISTORY, NEWEST, REFERENCE, SETTLED, SMOOTHED, RollingState
from gatewatch.jobs.scoring.signals import SIGNALS, SignalKey

LEARNED_FROM: Final = 8.0
"""The forecast does not learn from a capture whose residual is larger."""
WARM_UP: Final = 32
"""The fewest captures of a warm-up, the beginning of a run and phase: detectors learn from it, and give it no score."""
LONGEST_WARM_UP: Final = 64
"""The most captures of a warm-up: it ends here even if the levels are not settled."""
ON_THE_MOVE: Final = 0.25
"""The share of the level signals from which learning counts as under way. In healthy runs of `bench.faults`' develop
split, whose networks learn slowly, it stays below 0.23; in the bursts of networks that learn an autoregressive series
it goes up to between 0.3 and 0.8."""
_FEWEST: Final = 4
_TINY: Final = 1e-12
_OF_ZERO: Final = 1e-7
"""The smallest floor of a relative signal whose range has 0 in it: its size says nothing of how it is rounded. The
spacing of single precision is 1.2e-7 (IEEE 754)."""
_MIDDLE: Final = (SMOOTHED - 1) / 2
"""How many captures before the newest the median of `SMOOTHED` captures lies, on average."""


class _Recent(NamedTuple):
    """The newest captures of the C signals that have a forecast: (up to HISTORY, C) distances from it, (up to HISTORY,)
    sizes of the updates in multiples of the present one, and the (up to NEWEST, C) newest values."""

    distances: Array
    speed: Array
    newest: Array


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
            _settle(state, number, 0.0)
            continue
        window = slice(max(0, past - HISTORY), past - SMOOTHED + 1)
        newest = values[max(0, here + 1 - NEWEST) : here + 1, ready]
        recent = _Recent(distances[window, ready], speed[window] / speed[past], newest)
        off, off_z, moving = _residuals(state, ready, kinds[ready], middle[ready], recent, number)
        _settle(state, number, moving if kinds["update"].any() else 0.0)
        z[k, ready] = off_z
        before[k, ready], high[k] = np.median(state.reference[:, ready], axis=0), state.high
        with np.errstate(invalid="ignore"):
            near = ~(np.abs(off_z) > LEARNED_FROM) & np.isfinite(off)
        learnable[here, ready] &= near
        distances[past, ready] = np.where(learnable[here, ready], off, np.nan)
        medians[settled, ready] = np.where(learnable[here, ready], middle[ready], np.nan)
    state.count += size
    state.values, state.learnable = values[-NEWEST:], learnable[-NEWEST:]
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


def _settle(state: RollingState, number: int, moving: float) -> None:
    """End the warm-up before capture `number`, unless this share of the level signals is on the move."""
    if state.settled is None and number >= WARM_UP and (moving < ON_THE_MOVE or number >= LONGEST_WARM_UP):
        state.settled = number


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
    recent: _Recent,
    number: int,
) -> tuple[Array, Array, float]:
    """Return the distances from the forecast; their multiples of the usual distance, NaN where there is none; and the
    share of the level signals that are on the move."""
    at, reference = state.at[:, ready], state.reference[:, ready]
    age = number - _MIDDLE - at[-1]
    least = np.where(np.median(reference, axis=0) <= kinds["nothing"], kinds["nothing"], -np.inf)
    reference, middle = np.maximum(reference, least), np.maximum(middle, least)
    ahead = np.minimum(age, REFERENCE)
    forecast, slope = robust_line(at, reference, ahead)
    off = middle - forecast
    count, spread = usual_size(np.abs(recent.distances))
    _, at_this_speed = usual_size(np.abs(recent.distances) / recent.speed[:, None])
    spread = np.where(kinds["level"], np.maximum(spread, at_this_speed), spread)
    floors = kinds["floor"]
    of_size = floors * np.median(np.abs(reference), axis=0) + _TINY
    around_zero = (state.low[ready] <= 0) & (state.high[ready] >= 0)
    of_size = np.where(around_zero, np.maximum(of_size, _OF_ZERO), of_size)
    floors = np.where(kinds["relative"], of_size, floors)
    spread, way = np.maximum(spread, floors), np.where(kinds["level"], ahead * pace(slope, recent.newest), 0.0)
    levels = kinds["level"] & (count >= _FEWEST)
    moving = float(np.mean(way[levels] > spread[levels])) if levels.any() else 0.0
    uncertainty = np.sqrt(1 + np.maximum(0, age - 2) / REFERENCE)
    beyond = np.maximum(state.low[ready] - middle, middle - state.high[ready])
    off = np.where(kinds["rate"] & (beyond < floors), 0.0 * off, off)
    z = off / (np.maximum(spread, way) * uncertainty)
    return off, np.where(count >= _FEWEST, z, np.nan), moving
