"""Draw several runs in one chart: a line for each run, in one colour throughout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gatewatch.collector.names import PHASES
from gatewatch.jobs.findings.axis import Axis
from gatewatch.jobs.findings.learning import positive
from gatewatch.jobs.findings.run_points import RunPoints
from gatewatch.jobs.findings.series import Key, broken_values, is_loss
from gatewatch.jobs.frames import by_phase, metric_columns, not_finite, numbers, rank
from gatewatch.jobs.report.metric_section import epoch_ends
from gatewatch.jobs.report.plot_style import PALETTE, figure, line, shade_broken, show_constant

MOST_RUNS: Final = 8
"""More lines in a chart cannot be told apart."""
MAX_METRICS: Final = 24
MAX_LAYERS: Final = 12
_UPDATES: Final = {"gradient_norm": "gradient norm", "update_ratio": "update ratio"}


class Shown(NamedTuple):
    """A run as it is drawn: its name, its points, and the look of its lines."""

    name: str
    points: RunPoints
    colour: str
    dash: str


class Line(NamedTuple):
    """The values of one run over an axis."""

    run: Shown
    axis: Axis
    frame: pd.DataFrame
    values: NDArray[np.float64]
    broken: NDArray[np.bool_]


def shown(runs: Sequence[tuple[str, RunPoints]]) -> list[Shown]:
    """Give each run the look of its lines; past the palette they are dashed."""
    looks = [(colour, dash) for dash in ("solid", "dash") for colour in PALETTE][: len(runs)]
    return [Shown(name, points, *look) for (name, points), look in zip(runs, looks, strict=True)]


def metric_charts(runs: Sequence[Shown]) -> list[dict[str, Any]]:
    """Draw each metric, losses first; at most `MAX_METRICS`."""
    lines: dict[tuple[str, str], list[Line]] = {}
    for run in runs:
        for phase, rows in by_phase(run.points.metrics):
            frame = rows.reset_index(drop=True)
            ends = _epoch_ends(run, phase, frame)
            for column, name in metric_columns(frame).items():
                _add(
                    lines,
                    (phase, name),
                    run,
                    frame,
                    _by_epoch(numbers(frame, column), ends),
                    broken_values(frame, column),
                )
    ordered = sorted(lines, key=lambda key: (not is_loss(key[1]), key[1], rank(key[0], PHASES)))
    return [chart for key in ordered[:MAX_METRICS] for chart in _charts(key[1], key[0], lines[key])]


def score_charts(runs: Sequence[Shown]) -> list[dict[str, Any]]:
    """Draw the largest score of all series at each capture, then that of each layer."""
    whole: dict[str, list[Line]] = {}
    layers: dict[tuple[str, str], list[Line]] = {}
    for run in runs:
        for phase, keys in _grouped(run.points.scores, lambda key: key.phase).items():
            _add(whole, phase, run, *_largest([run.points.scores[key] for key in keys]))
        for place, keys in _grouped(run.points.scores, lambda key: (key.phase, key.layer)).items():
            _add(layers, place, run, *_largest([run.points.scores[key] for key in keys]))
    charts = [chart for phase, each in whole.items() for chart in _charts("largest score of all", phase, each)]
    if len(layers) > len(whole):
        for (phase, layer), each in _worst(layers):
            charts += _charts(layer, phase, each)
    for chart in charts:
        chart["figure"].add_hline(y=1, line={"color": "#b3261e", "width": 1.2, "dash": "dash"})
        chart["figure"].update_yaxes(rangemode="tozero")
    return charts


def gate_charts(runs: Sequence[Shown]) -> list[dict[str, Any]]:
    """Draw the mean of each gate, by layer."""
    return _by_layer(
        (run, key, frame, numbers(frame, "mean"), key.gate) for run in runs for key, frame in run.points.stats.items()
    )


def update_charts(runs: Sequence[Shown]) -> list[dict[str, Any]]:
    """Draw the gradients and the size of the steps of each parameter, by layer."""
    layers = _by_layer(
        (run, key, frame, positive(numbers(frame, field)), f"{title}, {key.gate}")
        for field, title in _UPDATES.items()
        for run in runs
        for key, frame in run.points.updates.items()
    )
    for layer in layers:
        for chart in layer["charts"]:
            chart["figure"].update_yaxes(type="log", exponentformat="power", nticks=6)
    return layers


def _epoch_ends(run: Shown, phase: str, frame: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which points of a run's metrics were written at the end of an epoch, shape (points,)."""
    if run.points.axis_of[phase].market:
        return np.zeros(len(frame), dtype=bool)
    captures = run.points.captures
    return epoch_ends(frame, captures[captures["phase"].fillna("") == phase] if "phase" in captures else captures)


def _by_epoch(values: NDArray[np.float64], ends: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return a metric by epoch where it was logged by batch too, else as it is; shape (points,)."""
    has = np.isfinite(values)
    return np.where(ends, values, np.nan) if (has & ends).any() and (has & ~ends).any() else values


def _by_layer(every: Iterable[tuple[Shown, Key, pd.DataFrame, NDArray[np.float64], str]]) -> list[dict[str, Any]]:
    """Return the charts of each layer: its name, and a chart for each title."""
    lines: dict[str, dict[tuple[str, str], list[Line]]] = {}
    for run, key, frame, values, title in every:
        _add(lines.setdefault(key.layer, {}), (key.phase, title), run, frame, values)
    charts = {
        layer: [chart for (phase, title), each in of_layer.items() for chart in _charts(title, phase, each)]
        for layer, of_layer in list(lines.items())[:MAX_LAYERS]
    }
    return [{"name": layer, "charts": of_layer} for layer, of_layer in charts.items() if of_layer]


def _add(
    lines: dict[Any, list[Line]],
    key: Any,
    run: Shown,
    frame: pd.DataFrame,
    values: NDArray[np.float64],
    broken: NDArray[np.bool_] | None = None,
) -> None:
    """Add the line of a run, where it has any value and its phase an axis.

    Args:
        lines: of all runs, by their place.
        key: the phase, or a tuple that begins with it.
        run: whose line it is.
        frame: its points.
        values: (points,), what is drawn.
        broken: (points,), where the value was not finite; None: where a point counts any such value.
    """
    phase = key if isinstance(key, str) else key[0]
    axis = run.points.axis_of.get(phase)
    if axis is not None and np.isfinite(values).any():
        lines.setdefault(key, []).append(
            Line(run, axis, frame, values, not_finite(frame) > 0 if broken is None else broken)
        )


def _charts(title: str, phase: str, lines: Sequence[Line]) -> Iterator[dict[str, Any]]:
    """Yield a chart of lines that share an axis: runs over steps are not drawn over those in market time."""
    for label in dict.fromkeys(each.axis.label for each in lines):
        alike = [each for each in lines if each.axis.label == label]
        chart = figure(230, market=alike[0].axis.market)
        for each in alike:
            finite = np.isfinite(each.values)  # a line would end at each capture that lacks the value
            trace = line(each.axis.x(each.frame)[finite], each.values[finite], each.run.name, each.run.colour)
            trace["line"] |= {"dash": each.run.dash}
            chart.add_scatter(**trace)
            shade_broken(chart, each.axis.x(each.frame), each.broken)
        show_constant(chart)
        chart.update_layout(showlegend=True)
        chart.update_xaxes(title_text=label)
        yield {"name": title, "phases": [phase] if phase else [], "axis": label, "figure": chart}


def _grouped(series: Mapping[Key, pd.DataFrame], place: Any) -> dict[Any, list[Key]]:
    groups: dict[Any, list[Key]] = {}
    for key in series:
        groups.setdefault(place(key), []).append(key)
    return groups


def _largest(frames: Sequence[pd.DataFrame]) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return one point for each capture of some series, with the largest of their scores."""
    columns = [name for name in ("time", "step") if all(name in frame for frame in frames)]
    scores = [frame[columns].assign(score=numbers(frame, "anomaly_score")) for frame in frames]
    whole = pd.concat(scores).groupby("time", as_index=False, sort=True).max()
    return whole, numbers(whole, "score")


def _worst(layers: Mapping[tuple[str, str], list[Line]]) -> list[tuple[tuple[str, str], list[Line]]]:
    """Return the layers with the largest scores, at most `MAX_LAYERS`, in their order."""
    top = {place: max(float(np.nanmax(each.values)) for each in lines) for place, lines in layers.items()}
    kept = set(sorted(top, key=lambda place: -top[place])[:MAX_LAYERS])
    return [(place, lines) for place, lines in layers.items() if place in kept]
