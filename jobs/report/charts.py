"""Draw the report's charts of gates: the anomaly scores of a layer, the range of a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gatewatch.collector.cells import gate_scale
from gatewatch.jobs.findings.axis import dates
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.report.plot_style import GATE_COLOURS, OTHER, PHASE_COLOURS, faint, figure, fit, line, points
from gatewatch.jobs.text import plotly_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from plotly.graph_objects import Figure

    from gatewatch.jobs.findings.axis import Axis


def score_chart(
    scores: Mapping[str, Mapping[str, pd.DataFrame]], axis: Axis, top: float, ends: Sequence[Any] | None = None
) -> Figure:
    """Draw the anomaly scores of a layer's gates, with a line at 1; several phases get a coloured background each.

    Args:
        scores: phase → gate → points; phases that follow each other on the axis.
        axis: the horizontal axis.
        top: the end of the vertical axis.
        ends: the range of the horizontal axis.
    """
    chart = figure(300, market=axis.market)
    in_legend: set[str] = set()
    for gates in scores.values():
        for gate, frame in gates.items():
            trace = line(axis.x(frame), numbers(frame, "anomaly_score"), gate, GATE_COLOURS.get(gate, OTHER), "max")
            chart.add_scatter(**trace, legendgroup=plotly_text(gate), showlegend=gate not in in_legend)
            in_legend.add(gate)
    if len(scores) > 1:
        for phase, gates in scores.items():
            _mark(chart, phase, [axis.x(frame) for frame in gates.values()])
    chart.add_hline(y=1, line={"color": "#b3261e", "width": 1.2, "dash": "dash"})
    chart.update_yaxes(range=[0, top * 1.05], title_text="anomaly score")
    chart.update_xaxes(title_text=axis.label)
    chart.update_layout(showlegend=True)
    fit(chart, ends)
    return chart


def band_chart(gate: str, phases: Mapping[str, pd.DataFrame], axis: Axis, *, by_phase: bool = False) -> Figure:
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
    reach: list[float] = []
    for phase, frame in phases.items():
        colour = PHASE_COLOURS.get(phase, OTHER) if by_phase else GATE_COLOURS.get(gate, OTHER)
        x, low, high = axis.x(frame), numbers(frame, "p05"), numbers(frame, "p95")
        chart.add_scatter(**points(x, low, "min"), **edge)
        chart.add_scatter(**points(x, high, "max"), **edge, fill="tonexty", fillcolor=faint(colour))
        chart.add_scatter(**line(x, numbers(frame, "mean"), phase if by_phase else gate, colour))
        reach += [float(value) for value in (*low, *high) if np.isfinite(value)]
    margin = 0.03 * (scale.high - scale.low)
    chart.update_yaxes(
        range=[min(scale.low, *reach, scale.high) - margin, max(scale.high, *reach, scale.low) + margin], nticks=5
    )
    return chart


def _mark(chart: Figure, phase: str, xs: Sequence[Any]) -> None:
    """Colour the background of a phase, and label it."""
    first, last = min(x.min() for x in xs if len(x)), max(x.max() for x in xs if len(x))
    ends = dates(np.asarray([first, last])) if isinstance(first, np.datetime64) else [float(first), float(last)]
    colour = PHASE_COLOURS.get(phase, OTHER)
    box = {"type": "rect", "xref": "x", "yref": "paper", "x0": ends[0], "x1": ends[1], "y0": 0, "y1": 1}
    chart.add_shape(**box, fillcolor=faint(colour, 0.08), line={"width": 0}, layer="below")
    place = {"x": ends[0], "xanchor": "left", "y": 1, "yref": "paper", "yanchor": "top", "showarrow": False}
    chart.add_annotation(**place, text=plotly_text(phase, 24), font={"color": colour, "size": 11})
