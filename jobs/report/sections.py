"""Make the template's values for the sections of the report that hold line charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gatewatch.jobs.findings.axis import without_overlap
from gatewatch.jobs.findings.learning import clipping, learning_problems
from gatewatch.jobs.findings.series import newest
from gatewatch.jobs.report.charts import band_chart, score_chart
from gatewatch.jobs.report.html import figure_json
from gatewatch.jobs.report.learning_charts import any_clipped, frequency_chart, gradient_chart, ratio_chart
from gatewatch.jobs.text import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from gatewatch.jobs.findings.axis import Axis
    from gatewatch.jobs.findings.series import Key, Row
    from gatewatch.jobs.report.metric_charts import MetricChart


def metric_section(charts: Sequence[MetricChart], framework: str) -> dict[str, Any]:
    """Make the section of what a run logged.

    Args:
        charts: from `metric_charts`.
        framework: of the run; Keras logs the running mean of an epoch, and the page says so.
    """
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
    """Make the section of each layer's gates; all scores share one vertical axis, so that layers can be compared.

    Args:
        shown: the layers to draw, in their order.
        stats, scores: series → points.
        rows: the table of gates.
        axes: the axes of the run.
        spans: phase → its first and last moment.
    """
    top = max((row.worst for row in rows if row.worst > 2), default=2.0)
    many = sum(len(axis.phases) for axis in axes) > 1
    sections = []
    for layer in shown:
        scored: list[dict[str, Any]] = []
        bands: list[dict[str, Any]] = []
        for axis in axes:
            ends = _ends(axis, [f for key, f in stats.items() if key.layer == layer and key.phase in axis.phases])
            for part in without_overlap(axis, spans):
                by_phase = {phase: own for phase in part.phases if (own := _of(scores, phase, layer))}
                if by_phase:
                    chart = score_chart(by_phase, part, top, ends)
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
        sections.append({"name": layer, "scores": scored, "bands": bands})
    return sections


def learning_section(
    updates: Mapping[Key, pd.DataFrame], axes: Mapping[str, Axis], most: int, many_phases: bool
) -> tuple[dict[str, Any], list[str]]:
    """Make the section of what each layer learns, and the first thing that is plainly wrong, as a sentence.

    Args:
        updates: series → points of `layer_updates`; the parameter is in the gate's place.
        axes: phase → its axis.
        most: how many layers to draw; layers with a problem come before others.
        many_phases: whether the run has several phases.
    """
    blocks = list(dict.fromkeys((key.phase, key.layer) for key in updates))
    params = {block: _of(updates, *block) for block in blocks}
    wrong = {block: learning_problems(params[block], axes[block[0]]) for block in blocks}
    kept = set(sorted(blocks, key=lambda block: not wrong[block])[:most])
    drawn = []
    for phase, layer in (block for block in blocks if block in kept):
        own = params[phase, layer]
        words = " ".join(wrong[phase, layer] + clipping(own))
        name = {"name": layer, "phases": [phase] if many_phases else []}
        drawn.append({**name, "words": words, "charts": _learning(own, axes[phase])})
    problems = [
        f"Learning went wrong in {layer}: {wrong[phase, layer][0]}" for phase, layer in blocks if wrong[phase, layer]
    ]
    return {"layers": drawn, "left_out": len(blocks) - len(drawn)}, problems[:1]


def _learning(params: Mapping[str, pd.DataFrame], axis: Axis) -> list[dict[str, Any]]:
    charts = [
        ("gradient norm", "dotted: after clipping" if any_clipped(params) else "", gradient_chart(params, axis)),
        ("update ratio", "usual in the band", ratio_chart(params, axis)),
        ("update frequency", "share of weights that moved", frequency_chart(params, axis)),
    ]
    return [{"name": name, "about": about, "figure": figure_json(chart)} for name, about, chart in charts if chart.data]


def _of(frames: Mapping[Key, pd.DataFrame], phase: str, layer: str) -> dict[str, pd.DataFrame]:
    """Return gate → points of one phase and layer."""
    return {key.gate: frame for key, frame in frames.items() if (key.phase, key.layer) == (phase, layer)}


def _ends(axis: Axis, frames: Sequence[pd.DataFrame]) -> tuple[Any, Any] | None:
    """Return the common range of an axis whose phases are drawn in charts of their own; None for a single phase."""
    own = [axis.x(frame) for frame in frames]
    if len(axis.phases) == 1 or not own:
        return None
    return np.min([x.min() for x in own]), np.max([x.max() for x in own])
