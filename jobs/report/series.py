"""The points of one run, sorted into series by phase, layer and gate. Frames in, frames out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from gatewatch.collector.schema import GRU_GATES, LSTM_GATES, PHASES, clean_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

DETECTORS: Final = ("consensus", "isolation_forest", "robust", "rules")
"""Which detector's scores are shown where several wrote some: the first of these."""
MAX_POINTS: Final = 400
_REDUCE: Final[Mapping[str, Callable[[NDArray[np.float64]], float]]] = {"mean": np.mean, "min": np.min, "max": np.max}
_PARAMS: Final = ("kernel", "recurrent", "bias")
_ORDER: Final = {gate: i for i, gate in enumerate(dict.fromkeys([*GRU_GATES[:2], *LSTM_GATES, *GRU_GATES, *_PARAMS]))}


class Key(NamedTuple):
    """Whose series it is. Of `layer_updates` the parameter stands in the gate's place."""

    phase: str
    layer: str
    gate: str


@dataclass(frozen=True)
class Row:
    """A line of the table of gates; NaN where there is no value.

    Attributes:
        mean: the newest mean activation.
        saturation: share of activations beyond the limits, newest, 0 to 1.
        timescale: memory timescale in steps of the sequence, newest.
        dead: dead units, newest.
        worst: the largest anomaly score.
        share: share of scored captures whose score is above 1.
    """

    key: Key
    mean: float
    saturation: float
    timescale: float
    dead: float
    worst: float
    share: float


def by_series(frame: pd.DataFrame, part: str = "gate", layers: Sequence[str] = ()) -> dict[Key, pd.DataFrame]:
    """The rows of each series, in order of time; layers and gates in their order, phases one after the other.

    Args:
        frame: points with the tags layer and `part`.
        part: gate, or param.
        layers: the network's, in its order; others come after them by name.
    """
    if frame.empty or not {"layer", part} <= set(frame.columns):
        return {}
    frame = frame.assign(phase=frame["phase"].fillna("") if "phase" in frame else "")
    groups = frame.groupby(["phase", "layer", part], sort=False)
    found = {Key(*map(str, key)): rows.reset_index(drop=True) for key, rows in groups}
    place = {layer: i for i, layer in enumerate(layers)}
    phases = {phase: i for i, phase in enumerate(PHASES)}

    def order(key: Key) -> tuple[Any, ...]:
        return (
            phases.get(key.phase, len(phases)),
            key.phase,
            place.get(key.layer, len(place)),
            key.layer,
            _ORDER.get(key.gate, len(_ORDER)),
            key.gate,
        )

    return {key: found[key] for key in sorted(found, key=order)}


def one_detector(scores: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The scores of the one detector that is shown, and its name; an empty name where there are no scores."""
    if "anomaly_score" not in scores or scores["anomaly_score"].isna().all():
        return "", scores.iloc[:0]
    if "detector" not in scores:
        return "detector", scores
    names = [name for name in scores["detector"].dropna().unique() if isinstance(name, str)]
    name = min(names, key=lambda n: (DETECTORS.index(n) if n in DETECTORS else len(DETECTORS), n), default="")
    return name, scores[scores["detector"] == name] if name else scores.iloc[:0]


def column(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """A field as floats, NaN where a point lacks it or it is no number; all NaN where the frame lacks it."""
    import pandas as pd  # noqa: PLC0415 - the frames come from it, so it is loaded already

    if name not in frame:
        return np.full(len(frame), np.nan)
    numbers = pd.to_numeric(frame[name], errors="coerce").astype("Float64")
    return np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def steps(frame: pd.DataFrame) -> NDArray[np.float64]:
    """The step of each point; the place in the series where points have none."""
    found = column(frame, "step")
    return np.arange(len(frame), dtype=np.float64) if np.isnan(found).any() else found


def newest(frame: pd.DataFrame | None, *names: str) -> float:
    """The newest finite value of the sum of some fields; NaN where there is none."""
    if frame is None or frame.empty:
        return float("nan")
    total = np.stack([column(frame, name) for name in names]).sum(axis=0)
    finite = total[np.isfinite(total)]
    return float(finite[-1]) if len(finite) else float("nan")


def binned(values: NDArray[Any], how: str) -> NDArray[Any]:
    """A series in at most 400 values: the `mean`, `min`, `max` or `last` of neighbours, NaN left out."""
    if len(values) <= MAX_POINTS:
        return values
    if how == "last":
        return np.asarray(values[np.linspace(0, len(values), MAX_POINTS + 1).astype(int)[1:] - 1])
    reduce = _REDUCE[how]
    parts = [part[np.isfinite(part)] for part in np.array_split(values, MAX_POINTS)]
    return np.array([float(reduce(part)) if len(part) else np.nan for part in parts])


def table(
    stats: Mapping[Key, pd.DataFrame], derived: Mapping[Key, pd.DataFrame], scores: Mapping[Key, pd.DataFrame]
) -> list[Row]:
    """One row for each series that has statistics or scores."""
    rows = []
    for key in dict.fromkeys([*stats, *scores]):
        own, late = stats.get(key), derived.get(key)
        score = column(scores[key], "anomaly_score") if key in scores else np.array([])
        score = score[np.isfinite(score)]
        saturation, dead = newest(late, "saturation"), newest(late, "dead_units")
        rows.append(
            Row(
                key,
                mean=newest(own, "mean"),
                saturation=newest(own, "saturated_low", "saturated_high") if np.isnan(saturation) else saturation,
                timescale=newest(late, "memory_timescale"),
                dead=newest(own, "dead_units") if np.isnan(dead) else dead,
                worst=float(score.max()) if len(score) else float("nan"),
                share=float((score > 1).mean()) if len(score) else float("nan"),
            )
        )
    return rows


def profiles(units: Mapping[str, pd.DataFrame]) -> dict[str, NDArray[np.float64]]:
    """Gate → (captures, units), from the `gate_units` points of one layer; without gates that hold nothing."""
    found: dict[str, NDArray[np.float64]] = {}
    for gate, frame in units.items():
        names = sorted(name for name in map(str, frame.columns) if re.fullmatch(r"u\d{3}", name))
        columns = [values for values in (column(frame, name) for name in names) if np.isfinite(values).any()]
        if columns:
            found[gate] = np.stack(columns, axis=1)
    return found


def config_of(text: object) -> dict[str, Any]:
    """The configuration of a run from its JSON; empty where it is none."""
    try:
        config = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return config if isinstance(config, dict) else {}


def layer_order(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The layers of a network in its order, as its configurations list them; as the points call them."""
    found = [layers for config in configs if isinstance(layers := config.get("layers"), dict | list)]
    return list(dict.fromkeys(clean_name(name) for layers in found for name in layers))


def worst_layers(rows: Sequence[Row], most: int) -> list[str]:
    """At most `most` layers, in their order: those with the largest share above 1 in any phase."""
    worst: dict[str, float] = {}
    for row in rows:
        share = 0.0 if np.isnan(row.share) else row.share
        worst[row.key.layer] = max(worst.get(row.key.layer, 0.0), share)
    kept = set(sorted(worst, key=lambda layer: -worst[layer])[:most])
    return [layer for layer in worst if layer in kept]
