"""The report's line charts: a metric, the anomaly scores of a layer, the range of a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.schema import OWN_TAGS, gate_scale
from jobs.report.series import binned, column, steps
from jobs.report.text import plotly_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from plotly.graph_objects import Figure

# Okabe and Ito's palette, which people with colour-blindness can tell apart; the same colour for a gate everywhere.
_BLUE, _RED, _GREEN, _ORANGE, _PURPLE, _SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
GATE_COLOURS: Final = {
    "input": _BLUE,
    "update": _BLUE,
    "forget": _RED,
    "reset": _RED,
    "candidate": _PURPLE,
    "cell": _GREEN,
    "output": _ORANGE,
    "hidden": _SKY,
}
_OTHER: Final = "#888888"
_NOT_METRICS: Final = OWN_TAGS | {"time", "step", "epoch", "nan_count", "inf_count"}


def metric_charts(metrics: pd.DataFrame) -> dict[str, Figure]:
    """A chart for each metric over steps, by its name; one named `val_…` is drawn beside the one it validates."""
    numeric = metrics.select_dtypes("number").columns
    names = [
        str(name) for name in numeric if name not in _NOT_METRICS and np.isfinite(column(metrics, str(name))).any()
    ]
    phases = list(metrics["phase"].fillna("").unique()) if "phase" in metrics and len(metrics) else [""]
    charts: dict[str, Figure] = {}
    for name in sorted(names, key=lambda name: (not name.endswith("loss"), name.startswith("val_"))):
        title = name.removeprefix("val_")
        figure = charts.setdefault(title, _figure(230))
        for phase in phases:
            rows = metrics[metrics["phase"].fillna("") == phase] if phase else metrics
            known = np.isfinite(column(rows, name))
            if not known.any():
                continue
            label = name if len(phases) == 1 else f"{name} ({phase})"
            x, y = steps(rows)[known], column(rows, name)[known]
            colour = _RED if name.startswith("val_") else _BLUE
            figure.add_scatter(
                **_line(x, y, plotly_text(label), colour), mode="lines+markers" if len(y) < 30 else "lines"
            )
        figure.update_layout(showlegend=any(line.name != plotly_text(title) for line in figure.data))
    return charts


def score_chart(scores: Mapping[str, pd.DataFrame], top: float) -> Figure:
    """The anomaly scores of a layer's gates over steps, with a line at 1. `top` is the end of the axis."""
    figure = _figure(300)
    for gate, frame in scores.items():
        line = _line(
            steps(frame), column(frame, "anomaly_score"), plotly_text(gate), GATE_COLOURS.get(gate, _OTHER), "max"
        )
        figure.add_scatter(**line, mode="lines")
    figure.add_hline(y=1, line={"color": "#b3261e", "width": 1.2, "dash": "dash"})
    figure.update_yaxes(range=[0, top * 1.05], title_text="anomaly score")
    figure.update_xaxes(title_text="step")
    figure.update_layout(showlegend=True)
    return figure


def band_chart(gate: str, frame: pd.DataFrame) -> Figure:
    """The mean of a gate over steps, in the band of its 5th to 95th percentile, on the gate's fixed scale."""
    colour = GATE_COLOURS.get(gate, _OTHER)
    scale = gate_scale(gate)
    low, high = column(frame, "p05"), column(frame, "p95")
    figure = _figure(200)
    # The edges of the band carry no name of their own: hovering shows the mean alone.
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    x = steps(frame)
    figure.add_scatter(**_points(x, low, "min"), **edge)
    figure.add_scatter(**_points(x, high, "max"), **edge, fill="tonexty", fillcolor=_faint(colour))
    figure.add_scatter(**_line(x, column(frame, "mean"), plotly_text(gate), colour), mode="lines")
    reach = np.array([value for value in (*low, *high) if np.isfinite(value)] or [0.0])
    margin = 0.03 * (scale.high - scale.low)
    figure.update_yaxes(
        range=[min(scale.low, float(reach.min())) - margin, max(scale.high, float(reach.max())) + margin], nticks=5
    )
    return figure


def _figure(height: int) -> Figure:
    import plotly.graph_objects as go  # noqa: PLC0415 - loaded only where a picture is drawn

    return go.Figure(
        layout={
            "template": None,
            "height": height,
            "margin": {"l": 46, "r": 12, "t": 10, "b": 36},
            "showlegend": False,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "hovermode": "x unified",
        }
    )


def _points(x: Any, y: Any, how: str) -> dict[str, Any]:
    return {"x": binned(x, "last").astype(np.float32 if x.max(initial=0) < 2**24 else np.float64),
            "y": binned(y, how).astype(np.float32)}  # fmt: skip


def _line(x: Any, y: Any, name: str, colour: str, how: str = "mean") -> dict[str, Any]:
    return {
        **_points(x, y, how),
        "name": name,
        "line": {"color": colour, "width": 1.8},
        "hovertemplate": "%{y:.4~g}",
    }


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
