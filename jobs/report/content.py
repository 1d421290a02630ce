"""What the report says and shows: the points and files of a run, as values for the template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import ConfigError
from collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, GATE_UNITS, RUNS, TRAIN_METRICS
from jobs.report.charts import band_chart, metric_charts, score_chart
from jobs.report.epochs import read_epochs
from jobs.report.facts import facts_of
from jobs.report.heatmap import MAX_FRAMES, render_gate_heatmap
from jobs.report.html import figure_json
from jobs.report.series import (
    Key,
    Row,
    by_series,
    config_of,
    newest,
    one_detector,
    profiles,
    steps,
    table,
    worst_layers,
)
from jobs.report.text import number, percent
from jobs.report.verdict import FEW, no_scores, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from collector.store.protocol import Store

MAX_LAYERS: Final = 12
"""How many layers are drawn; the table has all. More make a page that nobody scrolls to the end of."""
MAX_HEATMAP_FRAMES: Final = 48
"""How many frames all heatmaps together have: of 64 × 64 cells in four panels each, about 4 MB."""


def content(store: Store, about: Mapping[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Everything that the template names.

    Args:
        store: where the points are.
        about: the run's row of `store.runs()`.
        say: told what is being done, a line each.

    Raises:
        WriteUnavailable: the store does not answer.
    """
    run, config = str(about["run"]), config_of(about.get("config"))
    say(f"reading run {run}")
    events, metrics, stats_rows = (store.read(name, run=run) for name in (RUNS, TRAIN_METRICS, GATE_STATS))
    derived, scores_rows = (store.read(name, run=run) for name in (GATE_DERIVED, GATE_SCORES))
    detector, scores_rows = one_detector(scores_rows)
    stats, scores = by_series(stats_rows), by_series(scores_rows)
    rows = table(stats, by_series(derived), scores)
    shown = worst_layers(rows, MAX_LAYERS)
    many_phases = len({row.key.phase for row in rows}) > 1

    say("drawing heatmaps")
    epochs = read_epochs(config, run, frames=MAX_HEATMAP_FRAMES, layers=len({layer.layer for layer in shown}))
    heatmaps = _heatmaps(store, run, shown, epochs.layers, many_phases)
    say("drawing charts")
    return {
        "run": run,
        "facts": facts_of(about, events, rows, config),
        "verdict": verdict(rows, stats, scores, metrics),
        "no_scores": None if detector else no_scores(stats),
        "detector": detector.replace("_", " "),
        "many_phases": many_phases,
        "rows": [_cells(row) for row in rows],
        "left_out": len(worst_layers(rows, len(rows))) - len(shown),
        "metrics": [{"name": name, "figure": figure_json(chart)} for name, chart in metric_charts(metrics).items()],
        "layers": _layers(shown, stats, scores, rows, many_phases),
        "heatmaps": heatmaps,
        "from_points": any(heatmap["from_points"] for heatmap in heatmaps),
        "notes": epochs.notes,
        "config": config,
    }


def _cells(row: Row) -> dict[str, Any]:
    return {
        "phase": row.key.phase,
        "layer": row.key.layer,
        "gate": row.key.gate,
        "mean": number(row.mean),
        "saturation": percent(row.saturation),
        "timescale": number(row.timescale),
        "dead": number(row.dead),
        "worst": number(row.worst),
        "share": percent(row.share),
        "bar": round(100 * row.share) if np.isfinite(row.share) else 0,
        "alarming": row.share > FEW,
    }


def _layers(
    shown: list[Key],
    stats: Mapping[Key, pd.DataFrame],
    scores: Mapping[Key, pd.DataFrame],
    rows: list[Row],
    many_phases: bool,
) -> list[dict[str, Any]]:
    """The charts of each layer; all scores on one axis, so that layers can be compared."""
    top = max((row.worst for row in rows if row.worst > 2), default=2.0)
    found = []
    for layer in shown:
        scored = _of(layer, scores)
        found.append(
            {
                "name": _title(layer, many_phases),
                "scores": figure_json(score_chart(scored, top)) if scored else None,
                "bands": [
                    {"gate": gate, "now": number(newest(frame, "mean")), "figure": figure_json(band_chart(gate, frame))}
                    for gate, frame in _of(layer, stats).items()
                ],
            }
        )
    return found


def _heatmaps(
    store: Store, run: str, shown: list[Key], saved: Mapping[str, Mapping[str, Any]], many_phases: bool
) -> list[dict[str, Any]]:
    """The heatmap of each layer, from the epoch files; from the points of its units where it has none."""
    names = [name for name in dict.fromkeys([*(layer.layer for layer in shown), *saved]) if name in saved]
    found = [_heatmap(name, saved[name], name) for name in names[:MAX_LAYERS]]
    missing = [layer for layer in shown if layer.layer not in saved]
    if not missing:
        return found
    units = by_series(store.read(GATE_UNITS, run=run))
    for layer in missing:
        if gates := profiles(_of(layer, units)):
            captures = steps(max(_of(layer, units).values(), key=len))
            frames = min(MAX_FRAMES, max(10, 2 * MAX_HEATMAP_FRAMES // len(missing)))
            found.append(_heatmap(_title(layer, many_phases), gates, layer.layer, captures.tolist(), frames))
    return found


def _heatmap(
    title: str, data: Mapping[str, Any], layer: str, captures: list[float] | None = None, frames: int = MAX_FRAMES
) -> dict[str, Any]:
    """A heatmap for the template; where the data cannot be drawn, why."""
    from_points = captures is not None
    label = "step" if from_points else "position in the sequence"
    try:
        figure = render_gate_heatmap(data, layer, times=captures, time_label=label, max_frames=frames)
    except ConfigError as error:
        return {"name": title, "error": str(error), "figure": None, "from_points": from_points}
    figure.update_layout(title=None, template=None, margin={"t": 40})
    return {"name": title, "error": None, "figure": figure_json(figure), "from_points": from_points}


def _of(layer: Key, frames: Mapping[Key, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Gate → frame of one phase and layer."""
    return {key.gate: frame for key, frame in frames.items() if key._replace(gate="") == layer}


def _title(layer: Key, many_phases: bool) -> str:
    return f"{layer.layer} · {layer.phase}" if many_phases and layer.phase else layer.layer
