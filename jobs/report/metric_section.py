"""Make the report's section of what a run logged: losses together, every other metric in a chart of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from plotly.graph_objects import Figure

from gatewatch.collector.store.columns import field_columns
from gatewatch.jobs.findings.axis import Axis, moments
from gatewatch.jobs.findings.series import broken_values, is_loss, steps
from gatewatch.jobs.frames import NOT_METRICS, numbers
from gatewatch.jobs.report.plot_style import (
    BLUE,
    OTHER,
    PALETTE,
    PHASE_COLOURS,
    RED,
    figure,
    line,
    shade_broken,
    show_constant,
)

_NOT_DRAWN: Final = NOT_METRICS | {"time"}
_ALIKE: Final = 10.0
"""Losses share an axis if their largest values differ by at most this factor."""


def metric_charts(metrics: pd.DataFrame, captures: pd.DataFrame, axes: Sequence[Axis]) -> list[dict[str, Any]]:
    """Draw the charts of every metric, losses first; one named `val_…` is drawn beside the one it validates.

    Args:
        metrics: points of `train_metrics`, read with `prefix_tags`.
        captures: points of `gate_stats`; they distinguish batches from ends of epochs that log the same metric.
        axes: the axes of the run.
    """
    charts = []
    for axis in axes:
        logged = {phase: _fields(_of_phase(metrics, phase)) for phase in axis.phases}
        ends = {
            phase: np.zeros(len(frame), dtype=bool) if axis.market else epoch_ends(frame, _of_phase(captures, phase))
            for phase, frame in logged.items()
        }
        charts += [_chart(titles, axis, logged, ends) for titles in _together(_reach(logged.values()))]
    return sorted(charts, key=lambda chart: not chart["loss"])


def _chart(
    titles: Sequence[str], axis: Axis, logged: Mapping[str, pd.DataFrame], ends: Mapping[str, NDArray[np.bool_]]
) -> dict[str, Any]:
    """Draw some metrics of all phases of an axis.

    Args:
        titles: names of the metrics, without `val_`.
        axis: the horizontal axis.
        logged: phase → times and fields of its points.
        ends: phase → which of these points were written at the end of an epoch.

    Returns:
        The names of the metrics; the figure; its axis, with the phases that have such a metric; whether it shows
        losses; and whether faint lines show the values within an epoch.
    """
    drawn = [
        (phase, name)
        for title in titles
        for name in (title, f"val_{title}")
        for phase, frame in logged.items()
        if name not in _NOT_DRAWN and np.isfinite(numbers(frame, name)).any()
    ]
    shown = replace(axis, phases=tuple(phase for phase in axis.phases if any(phase == of for of, _ in drawn)))
    alone = all(name == titles[0] for _, name in drawn)  # the caption and the phases beside it say all
    chart = figure(230, market=axis.market)
    by_batch = False
    for (phase, name), colour in zip(drawn, _colours(drawn), strict=True):
        label = name if len(shown.phases) == 1 else phase if alone else f"{name} ({phase})"
        x, y = axis.x(logged[phase]), numbers(logged[phase], name)
        finite = np.isfinite(y)
        shade_broken(chart, x, broken_values(logged[phase], name))
        by_batch |= _draw(chart, x[finite], y[finite], ends[phase][finite], label, colour)
    chart.update_layout(showlegend=not alone or by_batch)
    show_constant(chart)
    loss = is_loss(titles[0])
    return {"name": ", ".join(titles), "figure": chart, "axis": shown, "loss": loss, "by_batch": by_batch}


def _of_phase(frame: pd.DataFrame, phase: str) -> pd.DataFrame:
    return frame[frame["phase"].fillna("") == phase] if "phase" in frame else frame


def _fields(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the times and the fields, each by its own name, without the tags, which may have the same names."""
    names = field_columns(frame.columns)
    return frame[["time", *names]].rename(columns=names)


def _reach(logged: Iterable[pd.DataFrame]) -> dict[str, float]:
    """Return title → the largest absolute value, of the metrics that have any."""
    largest: dict[str, float] = {}
    for frame in logged:
        for name in map(str, frame.select_dtypes("number").columns.difference([*_NOT_DRAWN])):
            sizes = np.abs(numbers(frame, name))
            if np.isfinite(sizes).any():
                title = name.removeprefix("val_") or name
                largest[title] = max(largest.get(title, 0.0), float(sizes[np.isfinite(sizes)].max()))
    return largest


def _together(reach: dict[str, float]) -> list[list[str]]:
    """Return the titles of each chart: losses of similar size together, `loss` first; every other title alone."""
    charts: list[list[str]] = []
    losses = sorted((title for title in reach if is_loss(title)), key=lambda title: (title != "loss", title))
    for title in losses:
        for chart in charts:
            sizes = reach[chart[0]], reach[title]
            if max(sizes) <= _ALIKE * min(sizes) and len(chart) < len(PALETTE) // 2:
                chart.append(title)
                break
        else:
            charts.append([title])
    return charts + [[title] for title in sorted(reach) if title not in losses]


def epoch_ends(metrics: pd.DataFrame, captures: pd.DataFrame) -> NDArray[np.bool_]:
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


def _draw(
    chart: Figure, x: NDArray[Any], y: NDArray[np.float64], last: NDArray[np.bool_], label: str, colour: str
) -> bool:
    """Draw a metric, and return whether its batches are drawn faintly behind its epochs.

    Args:
        chart: is drawn on.
        x, y, last: of each point the place, the value, and whether it was written at the end of an epoch.
        label, colour: of the line.
    """
    both = bool(last.any() and not last.all())
    if both:
        faint_line = line(x[~last], y[~last], f"{label}, by batch", colour, "extremes")
        faint_line["line"]["width"] = 1
        chart.add_scatter(**faint_line, opacity=0.4)
        x, y, label = x[last], y[last], f"{label}, by epoch"
    few = len(y) < 30 or last.all()
    chart.add_scatter(**line(x, y, label, colour, "extremes") | {"mode": "lines+markers" if few else "lines"})
    return both


def _colours(drawn: Iterable[tuple[str, str]]) -> list[str]:
    """Choose a colour for each metric of a chart: that of its phase or of validation, where no other has it yet."""
    colours: list[str] = []
    for phase, name in drawn:
        wanted = RED if name.startswith("val_") else PHASE_COLOURS.get(phase, BLUE)
        colours.append(next((colour for colour in (wanted, *PALETTE) if colour not in colours), OTHER))
    return colours
