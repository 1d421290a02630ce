"""The sections of the report that hold line charts, as values for the template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gatewatch.jobs.report.axis import lanes
from gatewatch.jobs.report.charts import band_chart, score_chart
from gatewatch.jobs.report.html import figure_json
from gatewatch.jobs.report.learning import clipped, clipping, findings, frequency_chart, gradient_chart, ratio_chart
from gatewatch.jobs.report.series import newest
from gatewatch.jobs.text import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from gatewatch.jobs.report.axis import Axis
    from gatewatch.jobs.report.metric_charts import MetricChart
    from gatewatch.jobs.report.series import Key, Row


def metric_section(charts: Sequence[MetricChart], framework: str) -> dict[str, Any]:
    """The charts of what a run logged, and what to say of them."""
    losses = any(chart.loss for chart in charts)
    others = any(not chart.loss for chart in charts)
    return {
        "title": "Losses and metrics" if losses and others else "Losses" if losses else "Metrics",
        "losses": losses,
        "others": others,
        "by_batch": any(chart.by_batch for chart in charts),
        "running": framework.startswith("keras"),
        "charts": [
            {
                "name": chart.name,
                "phases": chart.axis.phases,
                "over": chart.axis.label,
                "figure": figure_json(chart.figure),
            }
            for chart in charts
        ],
    }


def gate_section(
    shown: Sequence[str],
    stats: Mapping[Key, pd.DataFrame],
    scores: Mapping[Key, pd.DataFrame],
    rows: Sequence[Row],
    axes: Sequence[Axis],
    spans: Mapping[str, tuple[Any, Any]],
) -> list[dict[str, Any]]:
    """The charts of each layer; all scores on one vertical axis, so that layers can be compared.

    Args:
        shown: the layers, in their order.
        stats, scores: points by series.
        rows: of the table of gates.
        axes: of the run.
        spans: phase → its first and last moment.
    """
    top = max((row.worst for row in rows if row.worst > 2), default=2.0)
    many = sum(len(axis.phases) for axis in axes) > 1
    found = []
    for layer in shown:
        scored: list[dict[str, Any]] = []
        bands: list[dict[str, Any]] = []
        for axis in axes:
            ends = _ends(axis, [f for key, f in stats.items() if key.layer == layer and key.phase in axis.phases])
            for lane in lanes(axis, spans):
                by_phase = {phase: own for phase in lane.phases if (own := _of(scores, phase, layer))}
                if by_phase:
                    chart = score_chart(by_phase, lane, top, ends)
                    scored.append({"phases": list(by_phase), "figure": figure_json(chart)})
            gates = dict.fromkeys(key.gate for key in stats if key.layer == layer and key.phase in axis.phases)
            for gate in gates:
                frames = {p: _of(stats, p, layer)[gate] for p in axis.phases if gate in _of(stats, p, layer)}
                last = frames[max(frames, key=lambda phase: spans[phase][1])]
                bands.append(
                    {
                        "gate": gate,
                        "phases": list(frames),
                        "now": number(newest(last, "mean")),
                        "figure": figure_json(band_chart(gate, frames, axis, by_phase=many)),
                    }
                )
        found.append({"name": layer, "scores": scored, "bands": bands})
    return found


def learning_section(
    updates: Mapping[Key, pd.DataFrame], axes: Mapping[str, Axis], most: int, many_phases: bool
) -> tuple[dict[str, Any], list[str]]:
    """The charts of `layer_updates` by phase and layer, and what is plainly wrong with each, also as one sentence.

    Args:
        updates: points by series, the parameter in the gate's place.
        axes: phase → what it is drawn over.
        most: how many layers to draw; those with which something is wrong come before others.
        many_phases: whether the run has several phases.
    """
    blocks = list(dict.fromkeys((key.phase, key.layer) for key in updates))
    params = {block: _of(updates, *block) for block in blocks}
    wrong = {block: findings(params[block], axes[block[0]]) for block in blocks}
    kept = set(sorted(blocks, key=lambda block: not wrong[block])[:most])
    drawn = []
    for phase, layer in (block for block in blocks if block in kept):
        own = params[phase, layer]
        said = " ".join(wrong[phase, layer] + clipping(own))
        name = {"name": layer, "phases": [phase] if many_phases else []}
        drawn.append({**name, "words": said, "charts": _learning(own, axes[phase])})
    told = [
        f"Learning went wrong in {layer}: {wrong[phase, layer][0]}" for phase, layer in blocks if wrong[phase, layer]
    ]
    return {"layers": drawn, "left_out": len(blocks) - len(drawn)}, told[:1]


def _learning(params: Mapping[str, pd.DataFrame], axis: Axis) -> list[dict[str, Any]]:
    charts = [
        ("gradient norm", "dotted: after clipping" if clipped(params) else "", gradient_chart(params, axis)),
        ("update ratio", "usual in the band", ratio_chart(params, axis)),
        ("update frequency", "share of weights that moved", frequency_chart(params, axis)),
    ]
    return [{"name": name, "about": about, "figure": figure_json(chart)} for name, about, chart in charts if chart.data]


def _of(frames: Mapping[Key, pd.DataFrame], phase: str, layer: str) -> dict[str, pd.DataFrame]:
    """Gate → frame of one phase and layer."""
    return {key.gate: frame for key, frame in frames.items() if (key.phase, key.layer) == (phase, layer)}


def _ends(axis: Axis, frames: Sequence[pd.DataFrame]) -> tuple[Any, Any] | None:
    """The ends of an axis over which several phases are drawn apart: it is the same for each."""
    own = [axis.x(frame) for frame in frames]
    if len(axis.phases) == 1 or not own:
        return None
    return np.min([x.min() for x in own]), np.max([x.max() for x in own])
