"""Make the report's sections of gates: the anomaly scores of each layer, and the range of each gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from plotly.graph_objects import Figure

from gatewatch.collector.cells import gate_scale
from gatewatch.jobs.findings.axis import Axis, without_overlap
from gatewatch.jobs.findings.series import Key, Row, is_broken_now, newest, of_layer
from gatewatch.jobs.frames import not_finite, numbers
from gatewatch.jobs.report.plot_style import (
    GATE_COLOURS,
    OTHER,
    PHASE_COLOURS,
    faint,
    figure,
    line,
    places,
    points,
    shade_broken,
)
from gatewatch.jobs.text import number, plotly_text

Tables = Mapping[Key, pd.DataFrame]
Spans = Mapping[str, tuple[Any, Any]]


def score_charts(
    shown: Sequence[str], stats: Tables, scores: Tables, rows: Sequence[Row], axes: Sequence[Axis], spans: Spans
) -> list[dict[str, Any]]:
    """Draw the scores of each layer's gates; all charts share one vertical axis, so that layers can be compared.

    Args:
        shown: the layers to draw, in their order.
        stats, scores: series → points.
        rows: the table of gates.
        axes: the axes of the run.
        spans: phase → its first and last moment.

    Returns:
        For each chart the layer's name, the phases and the figure.
    """
    top = max((row.worst for row in rows if row.worst > 2), default=2.0)
    charts = []
    for layer in shown:
        for axis in axes:
            drawn = [frame for phase in axis.phases for frame in of_layer(stats, phase, layer).values()]
            ends = _reach(axis, drawn) if len(axis.phases) > 1 and drawn else None  # of charts side by side
            for part in without_overlap(axis, spans):
                if gates := {phase: own for phase in part.phases if (own := of_layer(scores, phase, layer))}:
                    chart = _score_chart(gates, part, top, ends)
                    charts.append({"name": layer, "phases": list(gates), "figure": chart})
    return charts


def range_charts(shown: Sequence[str], stats: Tables, axes: Sequence[Axis], spans: Spans) -> list[dict[str, Any]]:
    """Draw the range of each gate of each layer.

    Args:
        shown: the layers to draw, in their order.
        stats: series → points.
        axes: the axes of the run.
        spans: phase → its first and last moment.

    Returns:
        For each layer that has any its name, and its charts: the gate, its phases, its newest mean and the figure.
    """
    many = sum(len(axis.phases) for axis in axes) > 1
    layers = []
    for layer in shown:
        bands: list[dict[str, Any]] = []
        for axis in axes:
            by_phase = {phase: of_layer(stats, phase, layer) for phase in axis.phases}
            for gate in dict.fromkeys(gate for gates in by_phase.values() for gate in gates):
                frames = {phase: gates[gate] for phase, gates in by_phase.items() if gate in gates}
                last = frames[max(frames, key=lambda phase: spans[phase][1])]
                chart = _band_chart(gate, frames, axis, by_phase=many)
                bands.append({"gate": gate, "phases": list(frames), "now": _now(last), "figure": chart})
        if bands:
            layers.append({"name": layer, "bands": bands})
    return layers


def _now(frame: pd.DataFrame) -> str:
    """Return the newest mean of a gate; NaN where its newest capture has no finite value."""
    return "NaN" if is_broken_now(frame) else number(newest(frame, "mean"))


def _reach(axis: Axis, frames: Iterable[pd.DataFrame]) -> list[Any]:
    """Return the first and the last place of some points on an axis, as plotly takes them."""
    x = np.concatenate([axis.x(frame) for frame in frames])
    return list(places(np.array([x.min(), x.max()])))


def _score_chart(
    scores: Mapping[str, Mapping[str, pd.DataFrame]], axis: Axis, top: float, ends: Sequence[Any] | None
) -> Figure:
    """Draw the anomaly scores of a layer's gates, with a line at 1; several phases get a coloured background each.

    Args:
        scores: phase → gate → points; phases that follow each other on the axis.
        axis: the horizontal axis.
        top: the end of the vertical axis.
        ends: the range of the horizontal axis, as plotly takes it; None: as far as the points reach.
    """
    chart = figure(320, market=axis.market)
    in_legend: set[str] = set()
    for phase, gates in scores.items():
        for gate, frame in gates.items():
            trace = line(axis.x(frame), numbers(frame, "anomaly_score"), gate, GATE_COLOURS.get(gate, OTHER), "max")
            chart.add_scatter(**trace, legendgroup=plotly_text(gate), showlegend=gate not in in_legend)
            in_legend.add(gate)
        if len(scores) > 1:
            (first, last), colour = _reach(axis, gates.values()), PHASE_COLOURS.get(phase, OTHER)
            box = {"x0": first, "x1": last, "fillcolor": faint(colour, 0.08), "line_width": 0, "layer": "below"}
            label = {"text": plotly_text(phase, 24), "font": {"color": colour, "size": 11}}
            chart.add_vrect(**box, annotation=label, annotation_position="top left")
    chart.add_hline(y=1, line={"color": "#b3261e", "width": 1.2, "dash": "dash"})
    chart.update_yaxes(range=[0, top * 1.05], title_text="anomaly score")
    chart.update_xaxes(title_text=axis.label, range=ends if ends and ends[0] < ends[1] else None)
    return chart.update_layout(showlegend=True)


def _band_chart(gate: str, phases: Mapping[str, pd.DataFrame], axis: Axis, *, by_phase: bool) -> Figure:
    """Draw the mean of a gate in the band of its 5th to 95th percentile, on the gate's fixed scale.

    Args:
        gate: gives scale and colour.
        phases: phase → points.
        axis: the horizontal axis.
        by_phase: whether each phase has a colour of its own.
    """
    scale = gate_scale(gate)
    chart = figure(200, market=axis.market)
    # The edges of the band carry no name of their own: hovering shows the mean alone.
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    reach = [scale.low, scale.high]
    for phase, frame in phases.items():
        colour = PHASE_COLOURS.get(phase, OTHER) if by_phase else GATE_COLOURS.get(gate, OTHER)
        x, low, high = axis.x(frame), numbers(frame, "p05"), numbers(frame, "p95")
        chart.add_scatter(**points(x, low, "min"), **edge)
        chart.add_scatter(**points(x, high, "max"), **edge, fill="tonexty", fillcolor=faint(colour))
        chart.add_scatter(**line(x, numbers(frame, "mean"), phase if by_phase else gate, colour))
        shade_broken(chart, x, not_finite(frame) > 0)
        reach += [float(value) for value in (*low, *high) if np.isfinite(value)]
    margin = 0.03 * (scale.high - scale.low)
    return chart.update_yaxes(range=[min(reach) - margin, max(reach) + margin], nticks=5)
