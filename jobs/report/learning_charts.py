"""Draw the report's charts of what a layer learns, from the points of `layer_updates`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from gatewatch.jobs.findings.learning import positive
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.report.plot_style import BLUE, GREEN, ORANGE, OTHER, figure, line
from gatewatch.jobs.thresholds import UPDATE_HEALTHY

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

    from gatewatch.jobs.findings.axis import Axis

_COLOURS: Final = {"kernel": BLUE, "recurrent": ORANGE, "bias": GREEN}


class LearningChart(NamedTuple):
    """Hold a chart, its caption and a note beside the caption."""

    name: str
    note: str
    figure: Figure


def learning_charts(params: Mapping[str, pd.DataFrame], axis: Axis) -> list[LearningChart]:
    """Draw the gradients (dotted after clipping), the size of a step relative to the weights, and what share moved.

    Args:
        params: parameter → points of `layer_updates` of one phase and layer.
        axis: the horizontal axis.

    Returns:
        The charts that show any value.
    """
    gradients, ratios, frequencies = (figure(240, market=axis.market).update_layout(showlegend=True) for _ in range(3))
    clipped = False
    for name, frame in params.items():
        x, colour = axis.x(frame), _COLOURS.get(name, OTHER)
        before, after = numbers(frame, "gradient_norm"), numbers(frame, "gradient_norm_clipped")
        drawn = _draw(gradients, line(x, positive(before), name, colour))
        if not _equal(before, after):
            dotted = line(x, positive(after), f"{name}, clipped", colour) | {"showlegend": not drawn}
            dotted["line"] |= {"dash": "dot", "width": 1.4}
            clipped |= _draw(gradients, dotted)
        _draw(ratios, line(x, positive(numbers(frame, "update_ratio")), name, colour))
        _draw(frequencies, line(x, numbers(frame, "update_frequency"), name, colour))
    ratios.add_hrect(*UPDATE_HEALTHY, fillcolor="rgba(0,158,115,0.12)", line_width=0, layer="below")
    shown = positive(np.concatenate([UPDATE_HEALTHY, *(numbers(frame, "update_ratio") for frame in params.values())]))
    ends = np.log10([np.nanmin(shown) / 1.5, np.nanmax(shown) * 1.5])
    ratios.update_yaxes(range=ends.tolist())
    frequencies.update_yaxes(range=[-0.03, 1.05], nticks=5)
    for chart in (gradients, ratios):
        chart.update_yaxes(type="log", exponentformat="power", nticks=6)
    charts = [
        LearningChart("gradient norm", "dotted: after clipping" if clipped else "", gradients),
        LearningChart("update ratio", "usual in the band", ratios),
        LearningChart("update frequency", "share of weights that moved", frequencies),
    ]
    return [chart for chart in charts if chart.figure.data]


def _draw(chart: Figure, trace: dict[str, Any]) -> bool:
    """Add a trace that shows any value, and return whether it does."""
    if drawn := bool(np.isfinite(trace["y"]).any()):
        chart.add_scatter(**trace)
    return drawn


def _equal(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    both = np.isfinite(before) & np.isfinite(after)
    return bool(both.any() and np.allclose(before[both], after[both], rtol=1e-3, atol=0))
