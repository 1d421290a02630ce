"""The style of the report's line charts: the empty figure, a line on it, and the colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.cells import GATES
from gatewatch.jobs.findings.axis import dates
from gatewatch.jobs.findings.series import binned
from gatewatch.jobs.text import plotly_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

# Okabe and Ito's palette, which people with colour-blindness can tell apart.
BLUE, RED, GREEN, ORANGE, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
OTHER: Final = "#888888"
PALETTE: Final = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
GATE_COLOURS: Final = {name: gate.colour for name, gate in GATES.items()}
PHASE_COLOURS: Final = {"train": BLUE, "validation": RED, "backtest": PURPLE, "live": GREEN}


def figure(height: int, *, market: bool = False) -> Figure:
    """Make an empty figure of this height in pixels; its x-axis has dates in market time."""
    import plotly.graph_objects as go  # noqa: PLC0415 - loaded only where a picture is drawn

    return go.Figure(
        layout={
            "template": None,
            "height": height,
            "margin": {"l": 46, "r": 12, "t": 10, "b": 36},
            "showlegend": False,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "hovermode": "x unified",
            "xaxis": {"type": "date", "nticks": 6} if market else {},
        }
    )


def points(x: NDArray[Any], y: NDArray[np.float64], how: str = "mean") -> dict[str, Any]:
    """Return the x and y of a trace, at most 400 points, in the smallest exact types."""
    at = binned(x, "last")
    if at.dtype.kind == "M":
        return {"x": dates(at), "y": binned(y, how).astype(np.float32)}
    return {
        "x": at.astype(np.float32 if x.max(initial=0) < 2**24 else np.float64),
        "y": binned(y, how).astype(np.float32),
    }


def line(x: NDArray[Any], y: NDArray[np.float64], name: str, colour: str, how: str = "mean") -> dict[str, Any]:
    """Return the arguments of a scatter trace; `name` is escaped."""
    return {
        **points(x, y, how),
        "name": plotly_text(name),
        "mode": "lines",
        "line": {"color": colour, "width": 1.8},
        "hovertemplate": "%{y:.4~g}",
    }


def fit(figure: Figure, ends: Sequence[Any] | None) -> None:
    """Set the range of the x-axis to `ends`: two floats, or two datetime64."""
    if ends is not None and ends[0] < ends[1]:
        reach = np.asarray(ends)
        figure.update_xaxes(range=dates(reach) if reach.dtype.kind == "M" else reach.tolist())


def faint(colour: str, opacity: float = 0.18) -> str:
    """Return a transparent form of a colour `#rrggbb`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
