"""Draw a line chart of the report as a picture, for where no script runs."""

from __future__ import annotations

import base64
import html
from io import BytesIO
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

WIDTH: Final = 440
"""Of a picture, in pixels of a page."""
_DOTS: Final = 1.6
"""Dots of a picture for each pixel of a page, so that it is sharp on a dense screen."""
_DPI: Final = 96
_DASHES: Final = {"dash": "--", "dot": ":"}


def as_picture(chart: go.Figure) -> str:
    """Return a chart as the address `data:` of a PNG: its lines, bands, shaded stretches and ranges.

    Names of lines are left out, since a font may lack their letters: `legend` returns them.

    Args:
        chart: of scatter traces, from `plot_style.figure`.
    """
    height = int(chart.layout.height or 320)
    figure = Figure(figsize=(WIDTH / _DPI, height / _DPI), dpi=_DPI * _DOTS, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25, linewidth=0.5)
    edge = None
    for trace in chart.data:
        x, y = _places(trace.x), np.asarray(trace.y, dtype=float)
        if trace.fill == "tonexty" and edge is not None:
            colour, opacity = _colour(trace.fillcolor)
            axes.fill_between(x, edge, y, color=colour, alpha=opacity, linewidth=0)
        edge = y
        if trace.line.width:
            marker = "." if "markers" in (trace.mode or "") else ""
            style = {"linewidth": trace.line.width * 0.7, "alpha": trace.opacity, "marker": marker, "markersize": 4}
            axes.plot(x, y, color=trace.line.color, **style)
    for shape in chart.layout.shapes:
        _draw_shape(axes, shape)
    for note in chart.layout.annotations:
        _write(axes, note)
    for side, plotly_axis in (("x", chart.layout.xaxis), ("y", chart.layout.yaxis)):
        if plotly_axis.range:
            axes.set(**{f"{side}lim": tuple(_places(plotly_axis.range))})
        if label := plotly_axis.title.text:
            axes.set(**{f"{side}label": label})
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=8, parse_math=False)
    with BytesIO() as file:
        figure.savefig(file, format="png")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def legend(chart: go.Figure) -> list[tuple[str, str]]:
    """Return the name, as plain text, and the colour of each line that the legend of a chart has."""
    if not chart.layout.showlegend:
        return []
    named = [trace for trace in chart.data if trace.name and trace.showlegend is not False]
    return [(html.unescape(trace.name), trace.line.color) for trace in named]


def _draw_shape(axes: Axes, shape: Any) -> None:
    """Draw a line or a shaded stretch that reaches across the chart."""
    if shape.type == "line":
        style = _DASHES.get(shape.line.dash, "-")
        axes.axhline(float(shape.y0), color=shape.line.color, linewidth=shape.line.width, linestyle=style)
        return
    colour, opacity = _colour(shape.fillcolor)
    first, last = _places([shape.x0, shape.x1])
    axes.axvspan(first, last, color=colour, alpha=opacity, linewidth=0)


def _write(axes: Axes, note: Any) -> None:
    """Write at the top of a shaded stretch what it is, such as NaN, where every font has the letters."""
    text = html.unescape(note.text)
    if text.isascii():
        style = {"fontsize": 7, "color": note.font.color, "parse_math": False, "ha": note.xanchor, "va": "top"}
        axes.text(_places([note.x])[0], 0.98, text, transform=axes.get_xaxis_transform(), **style)


def _places(values: Any) -> NDArray[Any]:
    """Return places on an axis: numbers as they are, and what is text as moments."""
    places = np.asarray(values)
    return places if places.dtype.kind in "iuf" else places.astype("M8[us]")


def _colour(text: str) -> tuple[tuple[float, float, float], float]:
    """Return red, green and blue of 0 to 1, and the opacity, of a colour `rgba(…)`."""
    red, green, blue, opacity = (float(part) for part in text.removeprefix("rgba(").removesuffix(")").split(","))
    return (red / 255, green / 255, blue / 255), opacity
