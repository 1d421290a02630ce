"""Make the template's values for the sections of the report that hold line charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gatewatch.jobs.findings.axis import without_overlap
from gatewatch.jobs.findings.learning import clipping, learning_problems
from gatewatch.jobs.findings.series import newest, of_layer
from gatewatch.jobs.report.charts import band_chart, score_chart
from gatewatch.jobs.report.learning_charts import learning_charts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from gatewatch.jobs.findings.axis import Axis
    from gatewatch.jobs.findings.series import Key, Row


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
            by_phase = {phase: of_layer(stats, phase, layer) for phase in axis.phases}
            ends = _ends(axis, [frame for gates in by_phase.values() for frame in gates.values()])
            for part in without_overlap(axis, spans):
                if gates := {phase: own for phase in part.phases if (own := of_layer(scores, phase, layer))}:
                    scored.append({"phases": list(gates), "figure": score_chart(gates, part, top, ends)})
            for gate in dict.fromkeys(gate for gates in by_phase.values() for gate in gates):
                frames = {phase: gates[gate] for phase, gates in by_phase.items() if gate in gates}
                last = frames[max(frames, key=lambda phase: spans[phase][1])]
                chart = band_chart(gate, frames, axis, by_phase=many)
                bands.append({"gate": gate, "phases": list(frames), "now": newest(last, "mean"), "figure": chart})
        sections.append({"name": layer, "scores": scored, "bands": bands})
    return sections


def learning_section(
    updates: Mapping[Key, pd.DataFrame], axes: Mapping[str, Axis], most: int
) -> tuple[dict[str, Any], list[str]]:
    """Make the section of what each layer learns, and the first thing that is plainly wrong, as a sentence.

    Args:
        updates: series → points of `layer_updates`; the parameter is in the gate's place.
        axes: phase → its axis.
        most: how many layers to draw; layers with a problem come before others.
    """
    blocks = list(dict.fromkeys((key.phase, key.layer) for key in updates))
    params = {block: of_layer(updates, *block) for block in blocks}
    problems = {block: learning_problems(params[block], axes[block[0]]) for block in blocks}
    kept = set(sorted(blocks, key=lambda block: not problems[block])[:most])
    layers = [
        {
            "name": layer,
            "phases": [phase],
            "words": " ".join(problems[phase, layer] + clipping(params[phase, layer])),
            "charts": learning_charts(params[phase, layer], axes[phase]),
        }
        for phase, layer in blocks
        if (phase, layer) in kept
    ]
    first = [
        f"Learning went wrong in {layer}: {problems[phase, layer][0]}"
        for phase, layer in blocks
        if problems[phase, layer]
    ]
    return {"layers": layers, "left_out": len(blocks) - len(layers)}, first[:1]


def _ends(axis: Axis, frames: Sequence[pd.DataFrame]) -> tuple[Any, Any] | None:
    """Return the common range of an axis whose phases have a chart each; None for a single phase."""
    own = [axis.x(frame) for frame in frames]
    if len(axis.phases) == 1 or not own:
        return None
    return np.min([x.min() for x in own]), np.max([x.max() for x in own])
