"""What the points of `layer_updates` say of a layer: where learning is plainly wrong, in words; and its charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.jobs.report.plot_style import BLUE, GREEN, ORANGE, OTHER, figure, line
from gatewatch.jobs.report.series import column
from gatewatch.jobs.text import join_words, number, percent
from gatewatch.jobs.thresholds import GRADIENT_EXPLODED_RUN, GRADIENT_VANISHED, UPDATE_HEALTHY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from numpy.typing import NDArray
    from plotly.graph_objects import Figure

    from gatewatch.jobs.report.axis import Axis

RECENT: Final = 5
"""What is true of this many newest captures is true now."""
_COLOURS: Final = {"kernel": BLUE, "recurrent": ORANGE, "bias": GREEN}


def findings(params: Mapping[str, pd.DataFrame], axis: Axis) -> list[str]:
    """A sentence for each thing that is plainly wrong with a layer, the worst first.

    Args:
        params: parameter → points of `layer_updates` of one phase and layer.
        axis: what they are drawn over.
    """
    said = []
    if bad := {name: where for name, frame in params.items() if (where := _broken(frame)) is not None}:
        first = min(bad, key=lambda name: bad[name])
        said.append(f"Values that are not finite in the {_list(bad)}, first at {axis.told(params[first], bad[first])}.")
    if still := [name for name, frame in params.items() if _lately(column(frame, "update_frequency"), _all_zero)]:
        said.append(f"The {_list(still)} did not move at all in the last {RECENT} captures.")
    if gone := [name for name, frame in params.items() if _lately(column(frame, "gradient_norm"), _vanished)]:
        said.append(
            f"The gradient of the {_list(gone)} has vanished: "
            f"below {GRADIENT_VANISHED:g} in the last {RECENT} captures."
        )
    grown = {name: times for name, frame in params.items() if (times := _growth(frame)) > GRADIENT_EXPLODED_RUN}
    if grown:
        said.append(
            f"The gradient of the {_list(grown)} has exploded, to {number(max(grown.values()), 2)} times its median."
        )
    return said


def clipping(params: Mapping[str, pd.DataFrame]) -> list[str]:
    """A sentence where every gradient was clipped: not wrong in itself, but then the limit is the size of the step."""
    cut = {name: left for name, frame in params.items() if (left := _always_clipped(frame)) is not None}
    if not cut:
        return []
    share = percent(float(np.median(list(cut.values()))))
    return [f"Every gradient of the {_list(cut)} was clipped, at the median to {share} of its norm."]


def gradient_chart(params: Mapping[str, pd.DataFrame], axis: Axis) -> Figure:
    """The norms of the gradients on a logarithmic scale, dashed after clipping where that changed them."""
    chart = figure(240, market=axis.market)
    for name, frame in params.items():
        before, after = column(frame, "gradient_norm"), column(frame, "gradient_norm_clipped")
        colour, x = _COLOURS.get(name, OTHER), axis.x(frame)
        if np.isfinite(before).any():
            chart.add_scatter(**line(x, _logarithmic(before), name, colour))
        if np.isfinite(after).any() and not _same(before, after):
            drawn = line(x, _logarithmic(after), f"{name}, clipped", colour)
            drawn["line"] |= {"dash": "dot", "width": 1.4}
            chart.add_scatter(**drawn, showlegend=not np.isfinite(before).any())
    return _log(chart)


def ratio_chart(params: Mapping[str, pd.DataFrame], axis: Axis) -> Figure:
    """The size of a step relative to the weights, on a logarithmic scale, with the band that is usual."""
    chart = _lines(params, axis, "update_ratio", logarithmic=True)
    chart.add_hrect(*UPDATE_HEALTHY, fillcolor="rgba(0,158,115,0.12)", line_width=0, layer="below")
    known = [values for frame in params.values() if len(values := _logarithmic(column(frame, "update_ratio")))]
    low = min((float(np.nanmin(values)) for values in known if np.isfinite(values).any()), default=UPDATE_HEALTHY[0])
    high = max((float(np.nanmax(values)) for values in known if np.isfinite(values).any()), default=UPDATE_HEALTHY[1])
    ends = np.log10([min(low, UPDATE_HEALTHY[0]) / 1.5, max(high, UPDATE_HEALTHY[1]) * 1.5])
    return _log(chart).update_yaxes(range=ends.tolist())


def frequency_chart(params: Mapping[str, pd.DataFrame], axis: Axis) -> Figure:
    """The share of the weights that moved."""
    return _lines(params, axis, "update_frequency").update_yaxes(range=[-0.03, 1.05], nticks=5)


def clipped(params: Mapping[str, pd.DataFrame]) -> bool:
    """Whether any gradient of these was clipped."""
    both = [(column(frame, "gradient_norm"), column(frame, "gradient_norm_clipped")) for frame in params.values()]
    return any(np.isfinite(after).any() and not _same(before, after) for before, after in both)


def _lines(params: Mapping[str, pd.DataFrame], axis: Axis, field: str, *, logarithmic: bool = False) -> Figure:
    chart = figure(240, market=axis.market)
    for name, frame in params.items():
        values = column(frame, field)
        if np.isfinite(values).any():
            shown = _logarithmic(values) if logarithmic else values
            chart.add_scatter(**line(axis.x(frame), shown, name, _COLOURS.get(name, OTHER)))
    return chart.update_layout(showlegend=True)


def _log(chart: Figure) -> Figure:
    chart.update_yaxes(type="log", exponentformat="power", nticks=6)
    return chart.update_layout(showlegend=True)


def _logarithmic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a logarithmic axis can show of the values; the rest NaN."""
    return np.where(values > 0, values, np.nan)


def _same(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    known = np.isfinite(before) & np.isfinite(after)
    return bool(known.any() and np.allclose(before[known], after[known], rtol=1e-3, atol=0))


def _broken(frame: pd.DataFrame) -> int | None:
    bad = np.nan_to_num(column(frame, "nan_count")) + np.nan_to_num(column(frame, "inf_count")) > 0
    return int(np.argmax(bad)) if bad.any() else None


def _lately(values: NDArray[np.float64], told: Callable[[NDArray[Any]], bool]) -> bool:
    known = values[np.isfinite(values)][-RECENT:]
    return len(known) == RECENT and told(known)


def _all_zero(values: NDArray[Any]) -> bool:
    return not values.any()


def _vanished(values: NDArray[Any]) -> bool:
    return bool((values < GRADIENT_VANISHED).all())


def _growth(frame: pd.DataFrame) -> float:
    """The newest gradients over the median of all; 0 where too few are known."""
    norms = _logarithmic(column(frame, "gradient_norm"))
    known = norms[np.isfinite(norms)]
    return float(np.median(known[-RECENT:]) / np.median(known)) if len(known) > 3 * RECENT else 0.0


def _always_clipped(frame: pd.DataFrame) -> float | None:
    """What clipping leaves of the norm at the median, where it shortened every gradient; None where it did not."""
    before, after = _logarithmic(column(frame, "gradient_norm")), column(frame, "gradient_norm_clipped")
    known = np.isfinite(before) & np.isfinite(after)
    left = after[known] / before[known]
    return float(np.median(left)) if len(left) >= RECENT and (left < 0.99).all() else None


def _list(names: Any) -> str:
    return join_words(list(names))
