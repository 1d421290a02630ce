"""Draw the heatmaps of a run: from its epoch files, or from the points of `gate_units` where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.findings.axis import Axis, dates, without_overlap
from gatewatch.jobs.findings.series import Key, of_layer, profiles
from gatewatch.jobs.report.heatmap import MAX_FRAMES, render_gate_heatmap

_FEWEST_FRAMES: Final = 10
_SAVED: Final = "each frame an epoch, each column a position in the sequence"
_RECORDED: Final = "each column a capture"


def heatmaps(
    units: Mapping[Key, pd.DataFrame],
    shown: Sequence[str],
    saved: Mapping[tuple[str, str], Mapping[str, Any]],
    axes: Sequence[Axis],
    spans: Mapping[str, tuple[Any, Any]],
    frames: int,
) -> list[dict[str, Any]]:
    """Make the template's heatmaps of each layer; phases that follow each other in market time share one.

    Args:
        units: series → points of `gate_units`.
        shown: the layers to draw, in their order.
        saved: (phase, layer) → label of the epoch → gate → (time, units).
        axes: the axes of the run.
        spans: phase → its first and last moment.
        frames: about how many frames all heatmaps together have.
    """
    recorded = {(key.phase, key.layer) for key in units}
    parts: dict[str, list[Axis]] = {}
    for layer in shown:
        for axis in axes:
            unsaved = tuple(p for p in axis.phases if (p, layer) in recorded and (p, layer) not in saved)
            parts.setdefault(layer, []).extend(without_overlap(replace(axis, phases=unsaved), spans))
    most = min(MAX_FRAMES, max(_FEWEST_FRAMES, 2 * frames // max(1, sum(map(len, parts.values())))))
    pictures = []
    for layer in dict.fromkeys([*shown, *(layer for _, layer in saved)]):
        pictures += [_picture(saved[key], layer, key[:1], _SAVED) for key in saved if key[1] == layer]
        pictures += [drawn for part in parts.get(layer, ()) if (drawn := _of_units(units, layer, part, most))]
    return pictures


def _of_units(units: Mapping[Key, pd.DataFrame], layer: str, axis: Axis, frames: int) -> dict[str, Any]:
    """Draw the heatmap of a layer's units over captures; empty where no unit has a value."""
    gates: dict[str, list[pd.DataFrame]] = {}
    for phase in axis.phases:
        for gate, frame in of_layer(units, phase, layer).items():
            gates.setdefault(gate, []).append(frame)
    joined = {gate: pd.concat(parts, ignore_index=True) for gate, parts in gates.items()}
    if not (data := profiles(joined)):
        return {}
    longest = max(data, key=lambda gate: len(data[gate]))
    x = axis.x(joined[longest])
    begins = [axis.x(part)[0] for part in gates[longest][1:]]
    about = _RECORDED + "".join(f", {phase} from the dashed line on" for phase in axis.phases[1:][-1:] if begins)
    options = {"times": x if axis.market else x.tolist(), "time_label": axis.label, "max_frames": frames}
    return _picture(data, layer, axis.phases, about, begins, **options)


def _picture(
    data: Mapping[str, Any], layer: str, phases: Sequence[str], about: str, begins: Sequence[Any] = (), **options: Any
) -> dict[str, Any]:
    """Make a heatmap for the template; where the data cannot be drawn, an error says why.

    Args:
        data, layer, options: as of `render_gate_heatmap`.
        phases: that the heatmap shows.
        about: what its frames and columns are.
        begins: where each phase but the first begins on the time axis.
    """
    words = {"name": layer, "phases": phases, "about": about}
    try:
        figure = render_gate_heatmap(data, layer, **options)
    except ConfigError as error:
        return {**words, "error": str(error)}
    for begin in begins:
        figure.add_vline(x=dates(np.asarray([begin]))[0], line={"dash": "dash", "width": 1.5, "color": "#111111"})
    figure.update_layout(title=None, template=None, margin={"t": 40})
    return {**words, "figure": figure}
