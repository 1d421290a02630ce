"""Draw the report's charts of what a layer learns, from the points of `layer_updates`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.jobs.findings.learning import positive
from gatewatch.jobs.findings.series import column
from gatewatch.jobs.report.plot_style import BLUE, GREEN, ORANGE, OTHER, figure, line
from gatewatch.jobs.thresholds import UPDATE_HEALTHY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

    from gatewatch.jobs.findings.axis import Axis

_COLOURS: Final = {"kernel": BLUE, "recurrent": ORANGE, "bias": GREEN}


def gradient_chart(params: Mapping[str, pd.DataFrame], axis: Axis) -> Figure:
    """Draw the norms of the gradients on a logarithmic scale, dashed after clipping where that changed them."""
    chart = figure(240, market=axis.market)
    for name, frame in params.items():
        before, after = column(frame, "gradient_norm"), column(frame, "gradient_norm_clipped")
        colour, x = _COLOURS.get(name, OTHER), axis.x(frame)
        if np.isfinite(before).any():
            chart.add_scatter(**line(x, positive(before), name, colour))
        if np.isfinite(after).any() and not _equal(before, after):
            trace = line(x, positive(after), f"{name}, clipped", colour)
            trace["line"] |= {"dash": "dot", "width": 1.4}
            chart.add_scatter(**trace, showlegend=not np.isfinite(before).any())
    return _logarithmic(chart)


def ratio_chart(params: Mapping[str, pd.DataFrame], axis: Axis) -> Figure:
    """Draw the size of a step relative to the weights, on a logarithmic scale, with the usual band."""
    chart = _lines({name: (frame, positive(column(frame, "update_ratio"))) for name, frame in params.items()}, axis)
    chart.add_hrect(*UPDATE_HEALTHY, fillcolor="rgba(0,158,115,0.12)", line_width=0, layer="below")
    ratios = np.concatenate([UPDATE_HEALTHY, *(column(frame, "update_ratio") for frame in params.values())])
    ratios = positive(ratios)
    ends = np.log10([float(np.nanmin(ratios)) / 1.5, float(np.nanmax(ratios)) * 1.5])
    return _logarithmic(chart).update_yaxes(range=ends.tolist())


def frequency_chart(params: Mapping[str, pd.DataFrame], axis: Axis) -> Figure:
    """Draw the share of the weights that moved."""
    chart = _lines({name: (frame, column(frame, "update_frequency")) for name, frame in params.items()}, axis)
    return chart.update_yaxes(range=[-0.03, 1.05], nticks=5)


def any_clipped(params: Mapping[str, pd.DataFrame]) -> bool:
    """Return whether any gradient of these was clipped."""
    both = [(column(frame, "gradient_norm"), column(frame, "gradient_norm_clipped")) for frame in params.values()]
    return any(np.isfinite(after).any() and not _equal(before, after) for before, after in both)


def _lines(values: Mapping[str, tuple[pd.DataFrame, NDArray[np.float64]]], axis: Axis) -> Figure:
    chart = figure(240, market=axis.market)
    for name, (frame, y) in values.items():
        if np.isfinite(y).any():
            chart.add_scatter(**line(axis.x(frame), y, name, _COLOURS.get(name, OTHER)))
    return chart.update_layout(showlegend=True)


def _logarithmic(chart: Figure) -> Figure:
    chart.update_yaxes(type="log", exponentformat="power", nticks=6)
    return chart.update_layout(showlegend=True)


def _equal(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    both = np.isfinite(before) & np.isfinite(after)
    return bool(both.any() and np.allclose(before[both], after[both], rtol=1e-3, atol=0))
