"""Draw the heatmaps of a run: from its epoch files, or from the points of `gate_units` where it has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.findings.axis import Axis, dates, without_overlap
from gatewatch.jobs.findings.series import profiles
from gatewatch.jobs.report.heatmap import MAX_FRAMES, render_gate_heatmap
from gatewatch.jobs.report.html import figure_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from gatewatch.jobs.findings.series import Key

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
    many = sum(len(axis.phases) for axis in axes) > 1
    recorded = {(key.phase, key.layer) for key in units}
    wanted: list[tuple[str, Axis | str]] = []
    for layer in dict.fromkeys([*shown, *(layer for _, layer in saved)]):
        wanted += [(layer, phase) for phase, name in saved if name == layer]
        if layer in shown:
            for axis in axes:
                missing = tuple(p for p in axis.phases if (p, layer) in recorded and (p, layer) not in saved)
                wanted += [(layer, part) for part in without_overlap(Axis(missing, axis.market), spans)]
    from_points = sum(isinstance(source, Axis) for _, source in wanted)
    most = min(MAX_FRAMES, max(_FEWEST_FRAMES, 2 * frames // max(1, from_points)))
    pictures = []
    for layer, source in wanted:
        if isinstance(source, str):
            picture = _picture(saved[source, layer], layer, {})
            pictures.append({**picture, "phases": [source] if many else [], "about": _SAVED})
        elif picture := _of_units(units, layer, source, most):
            pictures.append({**picture, "phases": source.phases if many else []})
    return pictures


def _of_units(units: Mapping[Key, pd.DataFrame], layer: str, axis: Axis, frames: int) -> dict[str, Any]:
    """Draw the heatmap of a layer's units over captures; empty where no unit has a value."""
    import pandas as pd  # noqa: PLC0415 - the frames come from it, so it is loaded already

    gates: dict[str, list[pd.DataFrame]] = {}
    for phase in axis.phases:
        for key, frame in units.items():
            if (key.phase, key.layer) == (phase, layer):
                gates.setdefault(key.gate, []).append(frame)
    joined = {gate: pd.concat(parts, ignore_index=True) for gate, parts in gates.items()}
    if not (data := profiles(joined)):
        return {}
    longest = max(data, key=lambda gate: len(data[gate]))
    x = axis.x(joined[longest])
    options = {"times": x if axis.market else x.tolist(), "time_label": axis.label, "max_frames": frames}
    begins = [axis.x(part)[0] for part in gates[longest][1:]]
    about = "".join(f", {phase} from the dashed line on" for phase in axis.phases[1:][-1:] if begins)
    return {**_picture(data, layer, options, begins), "about": _RECORDED + about}


def _picture(
    data: Mapping[str, Any], layer: str, options: Mapping[str, Any], begins: Sequence[Any] = ()
) -> dict[str, Any]:
    """Make a heatmap for the template; where the data cannot be drawn, an error says why."""
    try:
        figure = render_gate_heatmap(data, layer, **options)
    except ConfigError as error:
        return {"name": layer, "error": str(error), "figure": None}
    for begin in begins:
        figure.add_vline(x=dates(np.asarray([begin]))[0], line={"dash": "dash", "width": 1.5, "color": "#111111"})
    figure.update_layout(title=None, template=None, margin={"t": 40})
    return {"name": layer, "error": None, "figure": figure_json(figure)}
