"""What a point is drawn over: its step, or the market's time; and which phases share an axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.schema import PHASES
from gatewatch.jobs.findings.run_state import DIED_SECONDS
from gatewatch.jobs.report.series import steps
from gatewatch.jobs.text import moment, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

_TOGETHER: Final = ("train", "validation")
"""These count the same steps; a backtest counts its own."""
_REAL: Final = "live"
"""The phase whose market time may be that of the clock."""


@dataclass(frozen=True)
class Axis:
    """A horizontal axis.

    Attributes:
        phases: which are drawn over it, those of a market in the order in which they begin.
        market: whether it shows the market's time; steps otherwise.
    """

    phases: tuple[str, ...]
    market: bool = False

    @property
    def label(self) -> str:
        """What it counts."""
        return "market time" if self.market else "step"

    def x(self, frame: pd.DataFrame) -> NDArray[Any]:
        """Where each point of a frame lies, shape (points,): float64 steps, or datetime64[ns]."""
        return moments(frame) if self.market else steps(frame)

    def told(self, frame: pd.DataFrame, i: int) -> str:
        """Where one point of a frame lies, in words."""
        return moment(moments(frame)[i]) if self.market else f"step {number(float(steps(frame)[i]))}"


def moments(frame: pd.DataFrame) -> NDArray[np.datetime64]:
    """The time of each point, datetime64[ns] in UTC, shape (points,)."""
    return np.asarray(frame["time"].to_numpy(dtype="datetime64[ns]"))


def market_phases(events: pd.DataFrame, *frames: pd.DataFrame) -> frozenset[str]:
    """The phases whose points have the market's time.

    That is so where most points of a phase lie outside the time in which the run was heard of, by more than a run may
    be silent. The phase `live` goes on in such a run's market time, also where that is the clock's.

    Args:
        events: of the measurement `runs`.
        frames: the run's points, of any measurements.
    """
    if events.empty:
        return frozenset()
    begin, end = _span(events)
    found, seen = set(), set()
    for frame in frames:
        for phase, rows in _by_phase(frame):
            seen.add(phase)
            at = moments(rows)
            if ((at < begin) | (at > end)).mean() > 0.5:
                found.add(phase)
    return frozenset(found | ({_REAL} & seen if found else set()))


def settled(frame: pd.DataFrame, market: frozenset[str], events: pd.DataFrame) -> pd.DataFrame:
    """The frame with every point of a market's phase in the market's time, in order of time.

    What is written at the end of an epoch has the clock's; it takes the time of the newest point up to its step.
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
        known = np.flatnonzero(own & ~stray)
        if not stray.any() or not len(known):
            continue
        known = known[np.argsort(at[known], kind="stable")]
        before = np.searchsorted(at[known], at[stray], side="right") - 1
        times[stray] = times[known[np.maximum(before, 0)]]
    return frame.assign(time=times).sort_values("time", kind="stable").reset_index(drop=True)


def axes_of(spans: Mapping[str, tuple[Any, Any]], market: frozenset[str]) -> list[Axis]:
    """The axes of a run: training and validation over the same steps, all of the market over its time.

    Args:
        spans: phase → its first and last moment.
        market: the phases that have the market's time.
    """
    ordered = sorted(spans, key=lambda phase: (PHASES.index(phase) if phase in PHASES else len(PHASES), phase))
    learning = tuple(phase for phase in ordered if phase in _TOGETHER and phase not in market)
    alone = [(phase,) for phase in ordered if phase not in _TOGETHER and phase not in market]
    traded = tuple(sorted((phase for phase in ordered if phase in market), key=lambda phase: spans[phase]))
    return [Axis(phases) for phases in (learning, *alone) if phases] + ([Axis(traded, market=True)] if traded else [])


def lanes(axis: Axis, spans: Mapping[str, tuple[Any, Any]]) -> list[Axis]:
    """An axis parted where phases would lie on top of each other: those stay together that follow each other."""
    parted: list[list[str]] = []
    for phase in axis.phases:
        if axis.market and parted and spans[parted[-1][-1]][1] <= spans[phase][0]:
            parted[-1].append(phase)
        else:
            parted.append([phase])
    return [Axis(tuple(phases), axis.market) for phases in parted]


def spans_of(*frames: pd.DataFrame) -> dict[str, tuple[Any, Any]]:
    """Phase → its first and last moment in any of the frames."""
    found: dict[str, tuple[Any, Any]] = {}
    for frame in frames:
        for phase, rows in _by_phase(frame):
            at = moments(rows)
            first, last = found.get(phase, (at.min(), at.max()))
            found[phase] = min(first, at.min()), max(last, at.max())
    return found


def dates(x: NDArray[np.datetime64]) -> list[str]:
    """Moments as plotly takes them, with no more digits than they need."""
    unit = next((unit for unit in ("D", "m", "s", "ms") if (x == x.astype(f"M8[{unit}]")).all()), "us")
    return [text.replace("T", " ") for text in x.astype(f"M8[{unit}]").astype(str).tolist()]


def between(places: NDArray[np.float64], times: Sequence[float] | NDArray[Any] | None) -> NDArray[Any]:
    """What stands at places between the times of captures 0, 1, …; the places themselves where there are none.

    Args:
        places: (n,), in captures.
        times: numbers, or datetime64, of which milliseconds are kept.
    """
    if times is None:
        return places
    at = np.asarray(times)
    if at.dtype.kind != "M":
        return np.interp(places, np.arange(len(at)), at.astype(np.float64))
    milliseconds = np.interp(places, np.arange(len(at)), at.astype("M8[ms]").astype(np.int64).astype(np.float64))
    return np.asarray(milliseconds.round().astype(np.int64).astype("M8[ms]"))


def _by_phase(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    if frame.empty:
        return []
    if "phase" not in frame:
        return [("", frame)]
    return [(str(phase), rows) for phase, rows in frame.groupby(frame["phase"].fillna(""), sort=False)]


def _span(events: pd.DataFrame) -> tuple[np.datetime64, np.datetime64]:
    at, slack = moments(events), np.timedelta64(int(DIED_SECONDS), "s")
    return at.min() - slack, at.max() + slack
