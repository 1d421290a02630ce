"""Make the report's section of what each layer learns, from the points of `layer_updates`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from plotly.graph_objects import Figure

from gatewatch.jobs.findings.axis import Axis
from gatewatch.jobs.findings.learning import clipping, learning_problems, positive
from gatewatch.jobs.findings.series import Key, of_layer
from gatewatch.jobs.frames import numbers
from gatewatch.jobs.report.plot_style import BLUE, GREEN, ORANGE, OTHER, figure, line
from gatewatch.jobs.thresholds import UPDATE_HEALTHY

_COLOURS: Final = {"kernel": BLUE, "recurrent": ORANGE, "bias": GREEN}


def learning_section(updates: Mapping[Key, pd.DataFrame], axes: Mapping[str, Axis], most: int) -> dict[str, Any]:
    """Make the section of what each layer learns.

    Args:
        updates: series → points of `layer_updates`; the parameter is in the gate's place.
        axes: phase → its axis.
        most: how many layers to draw; layers with a problem come before others.
    """
    params = {block: of_layer(updates, *block) for block in dict.fromkeys((key.phase, key.layer) for key in updates)}
    problems = {block: learning_problems(params[block], axes[block[0]]) for block in params}
    drawn = set(sorted(params, key=lambda block: not problems[block])[:most])
    layers = [
        {
            "name": layer,
            "phases": [phase],
            "words": " ".join([*(each.sentence for each in problems[phase, layer]), *clipping(frames)]),
            "charts": _charts(frames, axes[phase]),
        }
        for (phase, layer), frames in params.items()
        if (phase, layer) in drawn
    ]
    return {"layers": layers, "left_out": len(params) - len(layers)}


def _charts(params: Mapping[str, pd.DataFrame], axis: Axis) -> list[dict[str, Any]]:
    """Draw the gradients (dotted after clipping), the size of a step relative to the weights, and what share moved.

    Args:
        params: parameter → points of `layer_updates` of one phase and layer.
        axis: the horizontal axis.

    Returns:
        The name, note and figure of each chart that shows any value.
    """
    gradients, ratios, frequencies = (figure(240, market=axis.market).update_layout(showlegend=True) for _ in range(3))
    clipped = False
    for name, frame in params.items():
        x, colour = axis.x(frame), _COLOURS.get(name, OTHER)
        before, after = numbers(frame, "gradient_norm"), numbers(frame, "gradient_norm_clipped")
        drawn = _draw(gradients, line(x, positive(before), name, colour, "extremes"))
        if not _equal(before, after):
            dotted = line(x, positive(after), f"{name}, clipped", colour, "extremes") | {"showlegend": not drawn}
            dotted["line"] |= {"dash": "dot", "width": 1.4}
            clipped |= _draw(gradients, dotted)
        _draw(ratios, line(x, positive(numbers(frame, "update_ratio")), name, colour, "extremes"))
        _draw(frequencies, line(x, numbers(frame, "update_frequency"), name, colour, "extremes"))
    ratios.add_hrect(*UPDATE_HEALTHY, fillcolor="rgba(0,158,115,0.12)", line_width=0, layer="below")
    shown = positive(np.concatenate([UPDATE_HEALTHY, *(numbers(frame, "update_ratio") for frame in params.values())]))
    ends = np.log10([np.nanmin(shown) / 1.5, np.nanmax(shown) * 1.5])
    ratios.update_yaxes(range=ends.tolist())
    frequencies.update_yaxes(range=[-0.03, 1.05], nticks=5)
    for chart in (gradients, ratios):
        chart.update_yaxes(type="log", exponentformat="power", nticks=6)
    charts = [
        {
            "name": "gradient norm",
            "note": "size of the gradient" + ("; dotted: after clipping" if clipped else ""),
            "figure": gradients,
        },
        {
            "name": "update ratio",
            "note": "size of a step, as a share of the weights; usual in the band",
            "figure": ratios,
        },
        {"name": "update frequency", "note": "share of weights that moved", "figure": frequencies},
    ]
    return [chart for chart in charts if chart["figure"].data]


def _draw(chart: Figure, trace: dict[str, Any]) -> bool:
    """Add a trace that shows any value, and return whether it does."""
    if drawn := bool(np.isfinite(trace["y"]).any()):
        chart.add_scatter(**trace)
    return drawn


def _equal(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    both = np.isfinite(before) & np.isfinite(after)
    return bool(both.any() and np.allclose(before[both], after[both], rtol=1e-3, atol=0))
