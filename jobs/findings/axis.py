"""Choose the axis of a phase: its steps, or the market's time; and which phases share an axis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.names import PHASES
from gatewatch.collector.schema import DIED_SECONDS
from gatewatch.jobs.findings.series import steps
from gatewatch.jobs.frames import by_phase, rank
from gatewatch.jobs.text import moment, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

_TOGETHER: Final = ("train", "validation")
"""These count the same steps; a backtest counts its own."""
_REAL: Final = "live"
"""The phase whose market time may be wall-clock time."""
_OUT_OF_ORDER: Final = 0.05
"""Share of points. More are another walk over the same dates; fewer, such as one hour in autumn, no chart shows."""


@dataclass(frozen=True, eq=False)
class EpochScale:
    """Place steps among epochs.

    Attributes:
        begins: (epochs,), the step at which each begins, ascending.
        epochs: (epochs,), their numbers.
        length: steps of an epoch, for the last, whose end is not known.
    """

    begins: NDArray[np.float64]
    epochs: NDArray[np.float64]
    length: float

    def place(self, step: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the epoch of each step with the share of it that is over, such as 3.25; shape (n,)."""
        ends = np.append(self.begins, self.begins[-1] + self.length)
        inside = np.interp(step, ends, np.append(self.epochs, self.epochs[-1] + 1))
        place: NDArray[np.float64] = inside + np.maximum(0.0, step - ends[-1]) / self.length
        return place


@dataclass(frozen=True)
class Axis:
    """Describe a horizontal axis.

    Attributes:
        phases: the phases on this axis; in market time, in the order in which they begin.
        market: whether it shows moments; steps otherwise.
        clock: whether these are the clock's, not the market's.
        scale: shows epochs in the place of steps.
    """

    phases: tuple[str, ...]
    market: bool = False
    clock: bool = False
    scale: EpochScale | None = None

    @property
    def label(self) -> str:
        """Return what the axis counts."""
        if self.market:
            return "time (UTC)" if self.clock else "market time"
        return "epoch" if self.scale else "step"

    def x(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Return the place of each point of a frame, shape (points,): float64 steps or epochs, or datetime64[ns]."""
        if self.market:
            return moments(frame)
        return self.scale.place(steps(frame)) if self.scale else steps(frame)

    def describe(self, frame: pd.DataFrame, i: int) -> str:
        """Describe the place of one point of a frame, such as "step 120"."""
        return moment(moments(frame)[i]) if self.market else f"step {number(float(steps(frame)[i]))}"


def moments(frame: pd.DataFrame) -> NDArray[np.datetime64]:
    """Return the time of each point, datetime64[ns] in UTC, shape (points,)."""
    return np.asarray(frame["time"].to_numpy(dtype="datetime64[ns]"))


def market_phases(events: pd.DataFrame, *frames: pd.DataFrame) -> frozenset[str]:
    """Return the phases whose points have the market's time.

    These are the phases with most points outside the span of the run's events, by more than a run may be silent. In a
    run with such a phase, `live` goes on in market time too, also where that is wall-clock time.

    Args:
        events: points of the measurement `runs`.
        frames: points of the run, of any measurements.
    """
    if events.empty:
        return frozenset()
    begin, end = _span(events)
    market, phases = set(), set()
    for frame in frames:
        for phase, rows in by_phase(frame):
            phases.add(phase)
            at = moments(rows)
            if ((at < begin) | (at > end)).mean() > 0.5:
                market.add(phase)
    return frozenset(market | ({_REAL} & phases if market else set()))


def in_market_time(frame: pd.DataFrame, market: frozenset[str], events: pd.DataFrame) -> pd.DataFrame:
    """Move every point of a market's phase to the market's time, and sort by time.

    Points that are written at the end of an epoch have wall-clock time; each takes the time of the newest point up to
    its step.
    """
    if frame.empty or not market - {_REAL} or "step" not in frame:
        return frame
    begin, end = _span(events)
    times = moments(frame).copy()
    phases = frame["phase"].fillna("").to_numpy()
    at = steps(frame)
    for phase in market - {_REAL}:
        own = phases == phase
        stray = own & (times >= begin) & (times <= end)
        placed = np.flatnonzero(own & ~stray)
        if not stray.any() or not len(placed):
            continue
        placed = placed[np.argsort(at[placed], kind="stable")]
        before = np.searchsorted(at[placed], at[stray], side="right") - 1
        times[stray] = times[placed[np.maximum(before, 0)]]
    return frame.assign(time=times).sort_values("time", kind="stable").reset_index(drop=True)


def walked_again(market: frozenset[str], *frames: pd.DataFrame) -> frozenset[str]:
    """Return those of the phases in market time whose steps are in another order: market time went back.

    Args:
        market: the phases in market time.
        frames: points of the run in the order of time, of any measurements.
    """
    return frozenset(
        phase
        for frame in frames
        for phase, rows in by_phase(frame)
        if phase in market and (np.maximum.accumulate(steps(rows)) > steps(rows)).mean() > _OUT_OF_ORDER
    )


def in_step_order(frame: pd.DataFrame, phases: frozenset[str]) -> pd.DataFrame:
    """Sort the points of these phases by step; those of other phases stay where they are."""
    if frame.empty or not phases or not {"phase", "step"} <= set(frame.columns):
        return frame
    places = np.arange(len(frame))
    for phase in phases:
        own = np.flatnonzero(frame["phase"] == phase)
        places[own] = own[np.argsort(steps(frame)[own], kind="stable")]
    return frame.iloc[places].reset_index(drop=True)


def axes_of(spans: Mapping[str, tuple[Any, Any]], market: frozenset[str]) -> list[Axis]:
    """Choose the axes of a run: training and validation share their steps, market phases share the market's time.

    Args:
        spans: phase → its first and last moment.
        market: the phases in market time.
    """
    ordered = sorted(spans, key=lambda phase: rank(phase, PHASES))
    learning = tuple(phase for phase in ordered if phase in _TOGETHER and phase not in market)
    alone = [(phase,) for phase in ordered if phase not in _TOGETHER and phase not in market]
    in_market = tuple(sorted((phase for phase in ordered if phase in market), key=lambda phase: spans[phase]))
    axes = [Axis(learning), *map(Axis, alone), Axis(in_market, market=True)]
    return [axis for axis in axes if axis.phases]


def without_overlap(axis: Axis, spans: Mapping[str, tuple[Any, Any]]) -> list[Axis]:
    """Split an axis whose phases overlap; phases that follow each other in market time stay together."""
    parted: list[list[str]] = []
    for phase in axis.phases:
        if axis.market and parted and spans[parted[-1][-1]][1] <= spans[phase][0]:
            parted[-1].append(phase)
        else:
            parted.append([phase])
    return [replace(axis, phases=tuple(phases)) for phases in parted]


def spans_of(*frames: pd.DataFrame) -> dict[str, tuple[Any, Any]]:
    """Return phase → its first and last moment in any of the frames."""
    spans: dict[str, tuple[Any, Any]] = {}
    for frame in frames:
        for phase, rows in by_phase(frame):
            at = moments(rows)
            first, last = spans.get(phase, (at.min(), at.max()))
            spans[phase] = min(first, at.min()), max(last, at.max())
    return spans


def dates(x: NDArray[np.datetime64]) -> list[str]:
    """Format moments for plotly, with no more digits than they need; nanoseconds only keep bars of one time apart."""
    x = x.astype("M8[us]")
    unit = next((unit for unit in ("D", "m", "s", "ms") if (x == x.astype(f"M8[{unit}]")).all()), "us")
    return [text.replace("T", " ") for text in x.astype(f"M8[{unit}]").astype(str).tolist()]


def interpolate_times(places: NDArray[np.float64], times: Sequence[float] | NDArray[Any] | None) -> NDArray[Any]:
    """Interpolate between the times of captures 0, 1, …; return the places themselves where there are no times.

    Args:
        places: (n,), in captures.
        times: (captures,), numbers, or datetime64 that is rounded to milliseconds.
    """
    if times is None:
        return places
    at = np.asarray(times)
    if at.dtype.kind != "M":
        return np.interp(places, np.arange(len(at)), at.astype(np.float64))
    milliseconds = np.interp(places, np.arange(len(at)), at.astype("M8[ms]").astype(np.int64).astype(np.float64))
    return np.asarray(milliseconds.round().astype(np.int64).astype("M8[ms]"))


def _span(events: pd.DataFrame) -> tuple[np.datetime64, np.datetime64]:
    at, slack = moments(events), np.timedelta64(int(DIED_SECONDS), "s")
    return at.min() - slack, at.max() + slack
