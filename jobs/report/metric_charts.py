"""Draw the report's charts of what a run logged: losses together, every other metric in a chart of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.store.columns import field_columns
from gatewatch.jobs.findings.axis import Axis, moments
from gatewatch.jobs.findings.series import steps
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.report.plot_style import BLUE, OTHER, PALETTE, PHASE_COLOURS, RED, figure, line

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

_NOT_METRICS: Final = frozenset({"time", "step", "epoch", "nan_count", "inf_count"})
_LOSS: Final = re.compile(r"(^|[^a-z])loss$", re.IGNORECASE)
_ALIKE: Final = 10.0
"""Losses share an axis where the largest of one is at most so many times that of the other."""


@dataclass(frozen=True)
class MetricChart:
    """Hold a chart and what the page says beside it.

    Attributes:
        name: the metrics' names.
        axis: the horizontal axis, with the phases that have such a metric.
        loss: whether it shows losses.
        by_batch: whether faint lines show the values within an epoch.
    """

    name: str
    figure: Figure
    axis: Axis
    loss: bool
    by_batch: bool


def metric_charts(metrics: pd.DataFrame, captures: pd.DataFrame, axes: Sequence[Axis]) -> list[MetricChart]:
    """Draw the charts of every metric, losses first; one named `val_…` is drawn beside the one it validates.

    Args:
        metrics: points of `train_metrics`, read with `prefix_tags`.
        captures: points of `gate_stats`; they distinguish batches from ends of epochs that log the same metric.
        axes: the axes of the run.
    """
    own = {phase: _fields(_phase(metrics, phase)) for axis in axes for phase in axis.phases}
    counted = [phase for axis in axes if not axis.market for phase in axis.phases]
    ends = {phase: _epoch_ends(own[phase], _phase(captures, phase)) for phase in counted}
    charts = []
    for axis in axes:
        for titles in _together(_reach(_fields(metrics), [own[phase] for phase in axis.phases])):
            drawn = [
                (phase, name)
                for title in titles
                for name in (title, f"val_{title}")
                for phase in axis.phases
                if name not in _NOT_METRICS and np.isfinite(numbers(own[phase], name)).any()
            ]
            phases = tuple(phase for phase in axis.phases if any(phase == p for p, _ in drawn))
            chart = figure(230, market=axis.market)
            alone = all(name == titles[0] for _, name in drawn)  # the caption and the phases beside it say all
            by_batch = [
                _draw(chart, name, _label(name, phase, phases, alone), axis, own[phase], ends.get(phase))
                for phase, name in drawn
            ]
            _colour(chart, drawn, by_batch)
            chart.update_layout(showlegend=not alone or any(by_batch))
            shown = Axis(phases, axis.market)
            charts.append(MetricChart(", ".join(titles), chart, shown, bool(_LOSS.search(titles[0])), any(by_batch)))
    return sorted(charts, key=lambda chart: not chart.loss)


def _phase(frame: pd.DataFrame, phase: str) -> pd.DataFrame:
    return frame[frame["phase"].fillna("") == phase] if "phase" in frame else frame


def _fields(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the times and the fields, each by its own name, without the tags, which may have the same names."""
    names = field_columns(frame.columns)
    return frame[["time", *names]].rename(columns=names)


def _reach(metrics: pd.DataFrame, frames: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Return title → the largest absolute value."""
    largest: dict[str, float] = {}
    for name in map(str, metrics.select_dtypes("number").columns):
        values = np.concatenate([numbers(frame, name) for frame in frames])
        sizes = np.abs(values[np.isfinite(values)])
        if name not in _NOT_METRICS and len(sizes):
            title = name.removeprefix("val_") or name
            largest[title] = max(largest.get(title, 0.0), float(sizes.max()))
    return largest


def _together(reach: dict[str, float]) -> list[list[str]]:
    """Return the titles of each chart: losses of similar size together, `loss` first; every other title alone."""
    charts: list[list[str]] = []
    losses = sorted((title for title in reach if _LOSS.search(title)), key=lambda title: (title != "loss", title))
    for title in losses:
        for chart in charts:
            sizes = reach[chart[0]], reach[title]
            if max(sizes) <= _ALIKE * min(sizes) and len(chart) < len(PALETTE) // 2:
                chart.append(title)
                break
        else:
            charts.append([title])
    return charts + [[title] for title in sorted(reach) if title not in losses]


def _epoch_ends(metrics: pd.DataFrame, captures: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which points were written at the end of an epoch, shape (points,).

    Such a point is the last of its epoch, and either the second point of its step, or not preceded by a capture of its
    step, as a batch's point is.
    """
    ends = np.zeros(len(metrics), dtype=bool)
    if captures.empty or "epoch" not in metrics or "step" not in captures:
        return ends
    epoch, step = numbers(metrics, "epoch"), steps(metrics)
    captured = captures.groupby("step")["time"].min().reindex(step).to_numpy(dtype="datetime64[ns]")
    last = np.append(epoch[1:] != epoch[:-1], True)
    follows = (step[1:] == step[:-1]) | ~(captured <= moments(metrics))[1:]
    ends[1:] = (epoch[1:] == epoch[:-1]) & last[1:] & follows
    return ends


def _draw(chart: Figure, name: str, label: str, axis: Axis, rows: pd.DataFrame, ends: NDArray[np.bool_] | None) -> bool:
    """Draw a metric; return whether its batches are drawn faintly behind its epochs."""
    finite = np.isfinite(numbers(rows, name))
    x, y = axis.x(rows)[finite], numbers(rows, name)[finite]
    last = np.zeros(len(y), dtype=bool) if ends is None else ends[finite]
    both = bool(last.any() and not last.all())
    if both:
        drawn = line(x[~last], y[~last], f"{label}, by batch", OTHER)
        drawn["line"]["width"] = 1
        chart.add_scatter(**drawn, opacity=0.4)
        x, y, label = x[last], y[last], f"{label}, by epoch"
    few = len(y) < 30 or last.all()
    chart.add_scatter(**line(x, y, label, OTHER) | {"mode": "lines+markers" if few else "lines"})
    return both


def _label(name: str, phase: str, phases: Sequence[str], alone: bool) -> str:
    if len(phases) == 1:
        return name
    return phase if alone else f"{name} ({phase})"


def _colour(chart: Figure, drawn: Sequence[tuple[str, str]], by_batch: Sequence[bool]) -> None:
    """Give each metric of a chart its own colour: that of its phase or of validation, where no other has it yet."""
    traces = iter(chart.data)
    taken: set[str] = set()
    for (phase, name), both in zip(drawn, by_batch, strict=True):
        wanted = RED if name.startswith("val_") else PHASE_COLOURS.get(phase, BLUE)
        free: Any = (colour for colour in (wanted, *PALETTE, OTHER) if colour not in taken or colour == OTHER)
        colour = next(free)
        taken.add(colour)
        for _ in range(1 + both):
            next(traces).line.color = colour
