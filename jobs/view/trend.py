"""The trend of a run: its worst score and its loss over time, in a few spans, brought up to date from what is new."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.schema import GATE_SCORES, TRAIN_METRICS
from gatewatch.jobs.findings.series import is_loss
from gatewatch.jobs.frames import metric_columns, numbers, times

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.collector.store import Store

SPANS: Final = 60
"""How many spans of time a trend has, up to twice as many: each is two pixels of the small chart that shows it."""
_WHOLE: Final = {"detector": "consensus"}
"""Only what alarms."""


@dataclass(frozen=True)
class Line:
    """The smallest and the largest value in each span of time: (n,) each.

    Attributes:
        width: of a span, in nanoseconds; 0 where there is no value.
        start: where each begins, nanoseconds.
        low, high: the values.
    """

    width: int = 0
    start: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    low: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    high: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Worst:
    """The largest score of a run.

    Attributes:
        score: the score.
        phase, layer, gate: of which series.
        since: the step of the first score above 1 of that series; None where none is.
        since_time: its time, nanoseconds.
    """

    score: float
    phase: str
    layer: str
    gate: str
    since: int | None = None
    since_time: int | None = None


@dataclass(frozen=True)
class Trend:
    """What the list of runs shows of a run's scores and loss.

    Attributes:
        scores: the largest score of all series in each span.
        worst: the largest score; None before there is one.
        now: the largest of the newest scores of the phase that was scored last; None before there is one.
        loss_name: the metric that is drawn; empty where there is none.
        loss: its values.
    """

    scores: Line = Line()
    worst: Worst | None = None
    now: float | None = None
    loss_name: str = ""
    loss: Line = Line()


def update_trend(store: Store, run: str, last: Trend = Trend()) -> Trend:
    """Return the trend of a run.

    Args:
        store: holds the run.
        run: its name.
        last: its trend before; what lies before the last span of that is not read again.

    Raises:
        WriteUnavailable, ConfigError: the store cannot be read.
    """
    scores, series = _extend(store, GATE_SCORES, "anomaly_score", run, last.scores, _WHOLE)
    worst = _worst(store, run, scores.width, series, last.worst)
    now = _newest_score(store.newest(GATE_SCORES, run=run, tags=_WHOLE, prefix_tags=True))
    name = last.loss_name or _loss_name(store.newest(TRAIN_METRICS, run=run, prefix_tags=True))
    loss = _extend(store, TRAIN_METRICS, name, run, last.loss)[0] if name else last.loss
    return Trend(scores, worst, now, name, loss)


def merge(last: Line, start: NDArray[np.int64], low: NDArray[np.float64], high: NDArray[np.float64]) -> Line:
    """Put spans in the place of those that begin at the first of them or later, and join pairs where they are too many.

    Args:
        last: the line before, with the width of the new spans.
        start, low, high: (n,), the new spans, of several series; those with the same start are joined.
    """
    kept = last.start < start.min() if len(start) else np.ones(len(last.start), dtype=bool)
    line = Line(
        last.width,
        np.concatenate([last.start[kept], start]),
        np.concatenate([last.low[kept], low]),
        np.concatenate([last.high[kept], high]),
    )
    line = _joined(line, line.width)
    while len(line.start) > 2 * SPANS:
        line = _joined(line, 2 * line.width)
    return line


def _joined(line: Line, width: int) -> Line:
    """Return the line in spans of a width, a multiple of its own."""
    start, place = np.unique(line.start // width * width if width else line.start, return_inverse=True)
    low, high = np.full(len(start), np.inf), np.full(len(start), -np.inf)
    np.minimum.at(low, place, line.low)
    np.maximum.at(high, place, line.high)
    return Line(width, start, low, high)


def _extend(
    store: Store, measurement: str, name: str, run: str, last: Line, tags: dict[str, str] | None = None
) -> tuple[Line, pd.DataFrame]:
    """Return a line with what is new of a field, and the spans that were read, for each series."""
    begin = int(last.start[-1]) if len(last.start) else None
    width, frame = store.extremes(
        measurement, name, run=run, tags=tags, start=begin, buckets=SPANS, width=last.width or None
    )
    if frame.empty:
        return last, frame
    known = last if last.width else Line(width)
    return merge(known, times(frame), numbers(frame, "low"), numbers(frame, "high")), frame


def _worst(store: Store, run: str, width: int, series: pd.DataFrame, last: Worst | None) -> Worst | None:
    """Return the largest score with since when its series is above 1, from the spans that were read."""
    if series.empty:
        return last
    high = numbers(series, "high")
    row = series.iloc[int(np.argmax(high))]
    score, layer, gate = float(high.max()), str(row.get("layer") or ""), str(row.get("gate") or "")
    phase = str(row.get("phase") or "")
    if last is not None and last.score >= score:
        return last
    same = last is not None and (last.phase, last.layer, last.gate) == (phase, layer, gate)
    if score <= 1 or (same and last is not None and last.since is not None):
        since = (last.since, last.since_time) if same and last is not None else (None, None)
        return Worst(score, phase, layer, gate, *since)
    tags = {**_WHOLE, "layer": layer, "gate": gate, **({"phase": phase} if phase else {})}
    of_series = series[(series["layer"] == layer) & (series["gate"] == gate) & (numbers(series, "high") > 1)]
    begin = int(times(of_series).min())
    points = store.find(
        GATE_SCORES, run=run, start=begin, stop=begin + width, tags=tags, fields=["anomaly_score", "step"]
    )
    above = np.flatnonzero(numbers(points, "anomaly_score") > 1)
    if not len(above):
        return Worst(score, phase, layer, gate)
    step = numbers(points, "step")[above[0]]
    since_step = int(step) if np.isfinite(step) else None
    return Worst(score, phase, layer, gate, since_step, int(times(points)[above[0]]))


def _newest_score(newest: pd.DataFrame) -> float | None:
    """Return the largest of the newest scores of the phase that was scored last; None where there is none."""
    if newest.empty:
        return None
    if "phase" in newest:
        newest = newest[newest["phase"].isna() | (newest["phase"] == newest["phase"].iloc[-1])]
    score = numbers(newest, "anomaly_score")
    return float(np.nanmax(score)) if np.isfinite(score).any() else None


def _loss_name(newest: pd.DataFrame) -> str:
    """Return the metric to draw: `loss`, else what is called a loss, else the first; empty where there is none."""
    names = sorted(number_columns(newest).values(), key=lambda name: (name != "loss", not is_loss(name), name))
    return names[0] if names else ""


def number_columns(newest: pd.DataFrame) -> dict[str, str]:
    """Return column → name of the metrics that are numbers, of `train_metrics` points, read with `prefix_tags`."""
    return {column: name for column, name in metric_columns(newest).items() if newest[column].dtype.kind in "fiu"}
