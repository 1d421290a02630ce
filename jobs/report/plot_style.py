"""The style of the report's line charts: the empty figure, a line on it, and the colours."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from gatewatch.collector.cells import GATES
from gatewatch.jobs.findings.axis import dates
from gatewatch.jobs.findings.series import binned, extremes_of
from gatewatch.jobs.text import plotly_text

# Okabe and Ito's palette, which people with colour-blindness can tell apart.
BLUE, RED, GREEN, ORANGE, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
OTHER: Final = "#888888"
PALETTE: Final = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
GATE_COLOURS: Final = {name: gate.colour for name, gate in GATES.items()}
_BELOW_AXIS: Final = 38
"""Pixels from the axis to the legend below it, where Plotly's own buttons, at the top of a chart, cover nothing."""
PHASE_COLOURS: Final = {"train": BLUE, "validation": RED, "backtest": PURPLE, "live": GREEN}

_MOST_STRETCHES: Final = 40
"""Of more stretches of values that are not finite the first are shaded."""


def figure(height: int, *, market: bool = False) -> go.Figure:
    """Make an empty figure of this height in pixels; its x-axis has dates in market time."""
    return go.Figure(
        layout={
            "template": None,
            "height": height,
            "margin": {"l": 46, "r": 12, "t": 10, "b": 36},
            "showlegend": False,
            "legend": {"orientation": "h", "y": -_BELOW_AXIS / (height - 2 * _BELOW_AXIS), "yanchor": "top", "x": 0},
            "hovermode": "x unified",
            "xaxis": {"title": {"standoff": 2}, **({"type": "date", "nticks": 6} if market else {})},
        }
    )


def places(x: NDArray[Any]) -> Any:
    """Return places on an axis as plotly takes them: moments as text, numbers as they are."""
    return dates(x) if x.dtype.kind == "M" else x


def points(x: NDArray[Any], y: NDArray[np.float64], how: str = "mean") -> dict[str, Any]:
    """Return the x and y of a trace, at most 400 points, in the smallest types that hold them.

    Args:
        x, y: (points,).
        how: what stands for neighbours where there are more: their `mean`, `min`, `max`, or `extremes`, which are two
            of them.
    """
    if how == "extremes":
        shown = extremes_of(y)
        x, y = x[shown], y[shown]
    at = binned(x, "last")
    if at.dtype.kind != "M":
        at = at.astype(np.float32 if x.max(initial=0) < 2**24 else np.float64)
    values = binned(y, how)
    is_small = np.abs(values[np.isfinite(values)]).max(initial=0) <= np.finfo(np.float32).max
    return {"x": places(at), "y": values.astype(np.float32) if is_small else values}


def line(x: NDArray[Any], y: NDArray[np.float64], name: str, colour: str, how: str = "mean") -> dict[str, Any]:
    """Return the arguments of a scatter trace; `name` is escaped."""
    return {
        **points(x, y, how),
        "name": plotly_text(name),
        "mode": "lines",
        "line": {"color": colour, "width": 1.8},
        "hovertemplate": "%{y:.4~g}",
    }


def faint(colour: str, opacity: float = 0.18) -> str:
    """Return a transparent form of a colour `#rrggbb`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def show_constant(chart: go.Figure) -> None:
    """Give a chart whose lines all have one value an axis around it; Plotly's own reaches 1 below and above."""
    drawn = [np.asarray(trace.y, dtype=np.float64) for trace in chart.data]
    values = np.concatenate([np.array([]), *drawn])
    values = values[np.isfinite(values)]
    if len(values) and values[0] and (values == values[0]).all():
        chart.update_yaxes(range=sorted([0.0, 2 * float(values[0])]))


def shade_broken(chart: go.Figure, x: NDArray[Any], broken: NDArray[np.bool_]) -> None:
    """Shade the stretches of a chart in which values were not finite, which a line leaves out.

    Args:
        chart: is drawn on.
        x: (points,), places, ascending.
        broken: (points,), where values were not finite. A stretch reaches to the point after it.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], broken, [False]])))
    for begin, end in edges.reshape(-1, 2)[:_MOST_STRETCHES]:
        last = min(int(end), len(x) - 1)
        first = int(begin) if last > begin else max(0, last - 1)
        x0, x1 = places(x[[first, last]])
        label = {"text": "NaN", "font": {"color": RED, "size": 11}}
        chart.add_vrect(x0=x0, x1=x1, fillcolor=faint(RED, 0.14), line_width=0, layer="below", annotation=label)
