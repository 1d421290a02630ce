"""Draw the animated 2×2 heatmap of a layer's gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from gatewatch.collector.cells import gate_scale
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import MAX_PROFILE
from gatewatch.jobs.findings.axis import interpolate_times
from gatewatch.jobs.report.heatmap_data import METRICS, Picture, centres, labelled_frames, panels_of, picture, thin
from gatewatch.jobs.report.plot_style import places
from gatewatch.jobs.text import plotly_text

MAX_FRAMES: Final = 40
_GAP: Final = "rgba(128,128,128,0.3)"
FRAME_MS: Final = 350
_ONE_SIDED: Final = [[0, "#fbf3d0"], [0.25, "#bfdcc4"], [0.5, "#5fa9b8"], [0.75, "#25708f"], [1, "#0c2f4f"]]
_TWO_SIDED: Final = [[0, "#8c2d19"], [0.25, "#e08a5c"], [0.5, "#f7f5f2"], [0.75, "#5b9fc4"], [1, "#164a7a"]]
_METRIC_LABEL: Final = {
    "activation": "activation",
    "saturation": "share saturated",
    "variability": "deviation over the batch",
}


def render_gate_heatmap(
    gate_data: Any,
    layer_name: str,
    metric_type: str = "activation",
    *,
    times: Sequence[float] | NDArray[Any] | None = None,
    time_label: str = "position in the sequence",
    max_frames: int = MAX_FRAMES,
) -> go.Figure:
    """Draw four heatmaps of a layer, unit (y) by time (x), with Play, Pause and a slider.

    For an LSTM the panels are Input Signal Flow, Forget Gate Activation, Cell State Evolution and Output Gate
    Response; for a GRU update, reset, candidate and hidden. Colours are on the fixed scale of each gate, so frames
    and runs can be compared. More than 64 units or positions are averaged in groups of neighbours, more than 40
    frames are thinned evenly, the first and the last kept. A value that is not finite is a gap (grey). The figure has
    no button that uploads it; `write_html(…, config={"displaylogo": False})` leaves out the logo, a link to Plotly.

    Args:
        gate_data: gate → array of shape (time, units) or (batch, time, units): the animation sweeps along time. Or
            labelled frames, label → such a mapping (or a sequence of mappings): the animation shows one after the
            other. It starts on the last.
        layer_name: name of the layer, shown as plain text, never as markup.
        metric_type: `activation` (mean over the batch), `saturation` (share of the batch beyond the limits of
            `cells.gate_scale`) or `variability` (standard deviation over the batch).
        times: labels of the time axis, one for each position in the arrays: numbers, or an array of datetime64. None:
            0, 1, …
        time_label: title of the time axis.
        max_frames: how many frames to keep, at least two; fewer make a smaller file.

    Raises:
        ConfigError: an unknown metric; no gate to show; an array that is empty, of another shape, or does not hold
            numbers; frames whose units differ.
    """
    where = f"gate_data of layer {layer_name!r}"
    if metric_type not in METRICS:
        raise ConfigError(f"metric_type={metric_type!r}: must be one of {', '.join(METRICS)}")
    labels, all_frames = labelled_frames(gate_data, where)
    panels = panels_of(all_frames, where)
    kept = thin(len(all_frames), max_frames)
    named = [where] if labels is None else [f"{where}, frame {label!r}" for label in labels]
    pictures = [
        {
            gate: picture(all_frames[i][gate], gate, metric_type, f"{named[i]}, gate {gate!r}")
            for gate in panels
            if gate in all_frames[i]
        }
        for i in kept
    ]
    units = _units(pictures, where)
    recorded = [gate for gate in panels if gate in units]
    span = max(p.times for frame in pictures for p in frame.values())
    if times is not None and len(times) != span:
        raise ConfigError(f"times: {len(times)} given for arrays of {span} positions in {where}; give one for each")

    titles = [title if gate in recorded else f"{title}: not recorded" for gate, title in panels.items()]
    figure = make_subplots(rows=2, cols=2, subplot_titles=titles, horizontal_spacing=0.1, vertical_spacing=0.16)
    figure.update_xaxes(**_time_axis(span, times))
    scales: dict[tuple[float, float], str] = {}
    for panel, gate in enumerate(panels):
        cell = {"row": panel // 2 + 1, "col": panel % 2 + 1}
        rows, grid = units.get(gate, 1), None if gate in units else False
        grouped = f" (averages of {rows / MAX_PROFILE:.3g})" if rows > MAX_PROFILE else ""
        figure.update_yaxes(title_text=f"unit{grouped}", range=[-0.5, rows - 0.5], showgrid=grid, **cell)
        figure.update_xaxes(title_text=plotly_text(time_label) if panel > 1 else None, showgrid=grid, **cell)
        if gate not in units:
            continue
        figure.add_heatmap(
            **_trace(pictures[-1].get(gate), times),
            name=gate,
            coloraxis=scales.setdefault(_limits(gate, metric_type), f"coloraxis{len(scales) + 1 if scales else ''}"),
            hoverongaps=False,
            hovertemplate=f"unit %{{y:.0f}}<br>{plotly_text(time_label)} %{{x}}<br>{gate} %{{z:.3f}}<extra></extra>",
            **cell,
        )

    if labels is None:
        whole = [_trace(pictures[0][gate], times) for gate in recorded]
        ends = [n + 1 for n in thin(max(trace["z"].shape[1] for trace in whole), max_frames)]
        at = _positions(span, times)
        names = [at[end - 1] if isinstance(at, list) else f"{at[end - 1]:g}" for end in ends]
        data = [[{"z": trace["z"][:, :end], "x": trace["x"][:end]} for trace in whole] for end in ends]
    else:
        names = [plotly_text(labels[i], 24) for i in kept]
        data = [[_trace(frame.get(gate), times) for gate in recorded] for frame in pictures]
    figure.frames = [
        go.Frame(name=str(n), data=[go.Heatmap(**trace) for trace in traces], traces=list(range(len(recorded))))
        for n, traces in enumerate(data)
    ]
    notes = [f"{len(kept)} of {len(all_frames)} frames"] if len(kept) < len(all_frames) else []
    if infinite := sum(p.infinite for frame in pictures for p in frame.values()):
        notes.append(f"{infinite:,} infinite values left out")
    title = " · ".join([plotly_text(layer_name), _METRIC_LABEL[metric_type], *notes])
    _lay_out(figure, title, scales, metric_type)
    _add_controls(figure, names, plotly_text(time_label, 24) if labels is None else "")
    return figure


def _units(pictures: Sequence[Mapping[str, Picture]], where: str) -> dict[str, int]:
    """Return how many units each gate has; raise where frames differ."""
    units: dict[str, int] = {}
    for gate, shown in ((gate, shown) for frame in pictures for gate, shown in frame.items()):
        if shown.units != units.setdefault(gate, shown.units):
            fewer, more = sorted((shown.units, units[gate]))
            raise ConfigError(
                f"{where}: gate {gate!r} has {fewer} units in one frame and {more} in another; render the models apart"
            )
    return units


def _positions(count: int, times: Sequence[float] | NDArray[Any] | None) -> Any:
    """Return the time in the middle of each bin, as plotly takes it; shape (bins,)."""
    return places(interpolate_times(centres(count), times))


def _time_axis(span: int, times: Sequence[float] | NDArray[Any] | None) -> dict[str, Any]:
    """Return kind and range of the time axis, with room for half a cell at both ends."""
    at = interpolate_times(centres(span), times)
    dated = at.dtype.kind == "M"
    widths = np.diff(at) if len(at) > 1 else [np.timedelta64(24, "h") if dated else 1.0]
    ends = np.asarray([at[0] - widths[0] / 2, at[-1] + widths[-1] / 2])
    return {"range": list(places(ends)), **({"type": "date", "nticks": 6} if dated else {})}


def _trace(shown: Picture | None, times: Sequence[float] | NDArray[Any] | None) -> dict[str, Any]:
    """Return the values of a heatmap and its axes; one empty cell where there is no picture."""
    if shown is None:
        return {"z": [[None]], "x": [0], "y": [0]}
    y = centres(shown.units).astype(np.float32)
    return {"z": shown.z, "x": _positions(shown.times, times), "y": y}


def _limits(gate: str, metric: str) -> tuple[float, float]:
    """Return the ends of the colour scale; a standard deviation in [a, b] is at most (b − a) / 2 (Popoviciu 1935)."""
    scale = gate_scale(gate)
    if metric == "activation":
        return scale.low, scale.high
    return (0.0, 1.0) if metric == "saturation" else (0.0, (scale.high - scale.low) / 2)


def _lay_out(figure: go.Figure, title: str, scales: dict[tuple[float, float], str], metric: str) -> None:
    figure.update_layout(
        title={"text": title, "x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 15}},
        template="plotly_white",
        plot_bgcolor=_GAP,
        height=640,
        margin={"l": 56, "r": 24, "t": 76, "b": 150},
        modebar_remove=["sendChartToCloud"],  # which uploads the chart to Plotly, and is there by default
    )
    figure.update_annotations(font_size=13)
    width = 1 / len(scales)
    for i, ((low, high), name) in enumerate(scales.items()):
        place = {"orientation": "h", "len": width * 0.9, "x": width * (i + 0.5), "y": -0.16, "yanchor": "top"}
        label = {"text": f"{_METRIC_LABEL[metric]}, {low:g} to {high:g}", "side": "top"}
        bar = {**place, "title": label, "thickness": 10, "outlinewidth": 0, "tickfont": {"size": 11}}
        colours = _TWO_SIDED if low < 0 else _ONE_SIDED
        figure.update_layout({name: {"cmin": low, "cmax": high, "colorscale": colours, "colorbar": bar}})


def _add_controls(figure: go.Figure, names: Sequence[str], prefix: str) -> None:
    still = {"mode": "immediate", "transition": {"duration": 0}, "frame": {"duration": 0, "redraw": True}}
    play = {**still, "fromcurrent": True, "frame": {"duration": FRAME_MS, "redraw": True}}
    buttons = [
        {"label": "Play", "method": "animate", "args": [None, play]},
        {"label": "Pause", "method": "animate", "args": [[None], still]},
    ]
    menu = {"type": "buttons", "direction": "left", "showactive": False, "buttons": buttons}
    menu |= {"x": 0, "xanchor": "left", "y": -0.36, "yanchor": "top", "pad": {"t": 0, "r": 8}}
    steps = [{"label": name, "method": "animate", "args": [[str(n)], still]} for n, name in enumerate(names)]
    slider = {"active": len(steps) - 1, "steps": steps, "ticklen": 3, "minorticklen": 3, "font": {"size": 10}}
    slider |= {"x": 0.24, "len": 0.76, "y": -0.3, "yanchor": "top", "pad": {"t": 0, "b": 0}}
    slider["currentvalue"] = {"prefix": f"{prefix} " if prefix else "", "xanchor": "left", "font": {"size": 12}}
    figure.update_layout(updatemenus=[menu], sliders=[slider])
