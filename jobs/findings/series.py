"""Sort the points of one run into series by phase, layer and gate. Frames in, frames out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from gatewatch.collector.cells import CELLS, GATES
from gatewatch.collector.names import PHASES, clean_name
from gatewatch.jobs.frames import not_finite, numbers, rank
from gatewatch.jobs.scoring.checks.base import DATA, FEED, MODEL, OPTIMIZER, TARGETS
from gatewatch.jobs.thresholds import ALARM_CAPTURES, ALARM_WITHIN

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

DETECTOR_PREFERENCE: Final = ("consensus", "isolation_forest", "robust", "rules", "checks", "data")
"""The order in which a detector is chosen: the scores of the first one that wrote any are shown."""
MAX_POINTS: Final = 400
PARAMS: Final = ("kernel", "recurrent", "bias")
_PLACES: Final = {gate: max(cell.gate_names.index(gate) for cell in CELLS if gate in cell.gate_names) for gate in GATES}
_LOSS: Final = re.compile(r"(^|[^a-z])loss$", re.IGNORECASE)
_ORDER: Final = (*sorted(GATES, key=lambda gate: (_PLACES[gate], gate)), *PARAMS)


class Key(NamedTuple):
    """Name a series. For `layer_updates`, `gate` is the parameter."""

    phase: str
    layer: str
    gate: str


@dataclass(frozen=True)
class Row:
    """Hold a line of the table of gates; NaN where there is no value.

    Attributes:
        mean: the newest mean activation.
        saturation: share of activations beyond the limits, newest, 0 to 1.
        timescale: memory timescale in steps of the sequence, newest.
        dead: dead units, newest.
        worst: the largest anomaly score.
        share: share of scored captures whose score is above 1.
        source: where the cause of the largest score lies (network, data, optimizer, state, policy), if that is above 1;
            empty where it is not, or where the scores do not say it.
        alarms: whether its scores alarm; see `alarm_begins`.
        is_broken: whether its newest capture has no finite value: then what is newest above is not of now.
        is_gate: whether it has statistics: it is a gate and no parameter, loss or the like.
    """

    key: Key
    mean: float
    saturation: float
    timescale: float
    dead: float
    worst: float
    share: float
    source: str = ""
    alarms: bool = False
    is_broken: bool = False
    is_gate: bool = True


def by_series(frame: pd.DataFrame, part: str = "gate", layers: Sequence[str] = ()) -> dict[Key, pd.DataFrame]:
    """Split a frame into its series, each in order of time; phase by phase, layers and gates in their order.

    Args:
        frame: points with the tags layer and `part`.
        part: gate, or param.
        layers: names of the network's layers, in its order; others come after them by name.
    """
    if frame.empty or not {"layer", part} <= set(frame.columns):
        return {}
    frame = frame.assign(phase=frame["phase"].fillna("") if "phase" in frame else "")
    groups = frame.groupby(["phase", "layer", part], sort=False)
    series = {Key(*map(str, key)): rows.reset_index(drop=True) for key, rows in groups}

    def order(key: Key) -> tuple[tuple[int, str], ...]:
        return rank(key.phase, PHASES), rank(key.layer, layers), rank(key.gate, _ORDER)

    return {key: series[key] for key in sorted(series, key=order)}


def of_layer(series: Mapping[Key, pd.DataFrame], phase: str, layer: str) -> dict[str, pd.DataFrame]:
    """Return gate → points of one phase and layer."""
    return {key.gate: frame for key, frame in series.items() if (key.phase, key.layer) == (phase, layer)}


def one_detector(scores: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Return the name of the detector that is shown, and its scores; an empty name where there are no scores."""
    if "anomaly_score" not in scores or scores["anomaly_score"].isna().all():
        return "", scores.iloc[:0]
    if "detector" not in scores:
        return "detector", scores
    names = [name for name in scores["detector"].dropna().unique() if isinstance(name, str)]
    name = min(names, key=lambda name: rank(name, DETECTOR_PREFERENCE), default="")
    return name, scores[scores["detector"] == name] if name else scores.iloc[:0]


def first_broken(frame: pd.DataFrame) -> int | None:
    """Return the index of the first point that counts NaN or infinite values; None where none does."""
    broken = not_finite(frame) > 0
    return int(np.argmax(broken)) if broken.any() else None


def is_loss(name: str) -> bool:
    """Return whether a metric is a loss, by its name."""
    return bool(_LOSS.search(name))


def is_broken_now(frame: pd.DataFrame | None) -> bool:
    """Return whether the newest point of a gate has no finite value at all."""
    if frame is None or frame.empty:
        return False
    last = frame.iloc[-1:]
    return bool(not_finite(last)[0] > 0 and not np.isfinite(numbers(last, "mean")[0]))


def broken_values(frame: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    """Return (points,), where a metric was not finite.

    A point counts how many of its metrics were, and leaves these out: they are those that most of the three points
    before it had. What is logged now and then, such as a validation loss, is not looked for in each.

    Args:
        frame: points of `train_metrics` of one phase, in order of time.
        name: of the metric's column.
    """
    has = np.isfinite(numbers(frame, name))
    without = (not_finite(frame) > 0) & ~has
    begins = without & ~np.concatenate([[False], without[:-1]])
    number = np.arange(len(frame))
    total = np.concatenate([[0], np.cumsum(has)])
    lately = total[number] - total[np.maximum(number - 3, 0)]
    of_this = begins & (2 * lately >= np.minimum(number, 3))
    latest = np.maximum.accumulate(np.where(begins, number, -1))
    broken: NDArray[np.bool_] = without & (latest >= 0) & of_this[latest]
    return broken


def alarm_begins(score: NDArray[np.float64]) -> int | None:
    """Return the first of `ALARM_CAPTURES` scores above 1 within `ALARM_WITHIN` in a row, as its index; None: no alarm.

    Args:
        score: (captures,), all finite.
    """
    above = np.flatnonzero(score > 1)
    first, last = above[: len(above) - ALARM_CAPTURES + 1], above[ALARM_CAPTURES - 1 :]
    together = first[last - first < ALARM_WITHIN]
    return int(together[0]) if len(together) else None


def steps(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the step of each point, shape (points,); their index where any point has no step."""
    values = numbers(frame, "step")
    return np.arange(len(frame), dtype=np.float64) if np.isnan(values).any() else values


def step_at(frame: pd.DataFrame, i: int) -> int | None:
    """Return the step of one point; None where it has none."""
    step = float(numbers(frame, "step")[i])
    return int(step) if np.isfinite(step) else None


def newest(frame: pd.DataFrame | None, *names: str) -> float:
    """Return the newest finite value of the sum of some fields; NaN where there is none."""
    if frame is None or frame.empty:
        return float("nan")
    total = np.stack([numbers(frame, name) for name in names]).sum(axis=0)
    finite = total[np.isfinite(total)]
    return float(finite[-1]) if len(finite) else float("nan")


def binned(values: NDArray[Any], how: str) -> NDArray[Any]:
    """Reduce a series to at most 400 values: the `mean`, `min`, `max` or `last` of neighbours, without NaN."""
    if len(values) <= MAX_POINTS:
        return values
    if how == "last":
        return np.asarray(values[np.linspace(0, len(values), MAX_POINTS + 1).astype(int)[1:] - 1])
    parts = (part[np.isfinite(part)] for part in np.array_split(values, MAX_POINTS))
    return np.array([getattr(part, how)() if len(part) else np.nan for part in parts])


def extremes_of(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the places of at most 400 values that show a series: the smallest and the largest of neighbours.

    Args:
        values: (n,); NaN is never one of them where there is another value.
    """
    if len(values) <= MAX_POINTS:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), MAX_POINTS // 2 + 1).astype(int)
    ends = pairwise(edges.tolist())
    found = {int(begin + pick(values[begin:end])) for begin, end in ends for pick in (_lowest, _highest)}
    return np.array(sorted(found), dtype=np.intp)


def _lowest(values: NDArray[np.float64]) -> int:
    return int(np.argmin(np.where(np.isnan(values), np.inf, values)))


def _highest(values: NDArray[np.float64]) -> int:
    return int(np.argmax(np.where(np.isnan(values), -np.inf, values)))


def table(
    stats: Mapping[Key, pd.DataFrame], derived: Mapping[Key, pd.DataFrame], scores: Mapping[Key, pd.DataFrame]
) -> list[Row]:
    """Make the table of gates: a row for each series that has statistics or scores."""
    rows = []
    for key in dict.fromkeys([*stats, *scores]):
        statistics, metrics = stats.get(key), derived.get(key)
        score = numbers(scores[key], "anomaly_score") if key in scores else np.array([])
        source = _source(scores[key], score) if key in scores else ""
        score = score[np.isfinite(score)]
        saturation, dead = newest(metrics, "saturation"), newest(metrics, "dead_units")
        rows.append(
            Row(
                key,
                mean=newest(statistics, "mean"),
                saturation=newest(statistics, "saturated_low", "saturated_high")
                if np.isnan(saturation)
                else saturation,
                timescale=newest(metrics, "memory_timescale"),
                dead=newest(statistics, "dead_units") if np.isnan(dead) else dead,
                worst=float(score.max()) if len(score) else float("nan"),
                share=float((score > 1).mean()) if len(score) else float("nan"),
                source=source,
                alarms=alarm_begins(score) is not None,
                is_broken=is_broken_now(statistics),
                is_gate=statistics is not None,
            )
        )
    return rows


def _source(frame: pd.DataFrame, score: NDArray[np.float64]) -> str:
    """Return the source of the largest of a series' scores, if that is above 1."""
    if "source" not in frame or not (score > 1).any():
        return ""
    source = frame["source"].iloc[int(np.nanargmax(score))]
    return source if isinstance(source, str) else ""


def profiles(units: Mapping[str, pd.DataFrame]) -> dict[str, NDArray[np.float64]]:
    """Return gate → (captures, units), from the `gate_units` points of one layer; gates without values are left out."""
    by_gate: dict[str, NDArray[np.float64]] = {}
    for gate, frame in units.items():
        names = sorted(name for name in map(str, frame.columns) if re.fullmatch(r"u\d{3}", name))
        columns = [values for values in (numbers(frame, name) for name in names) if np.isfinite(values).any()]
        if columns:
            by_gate[gate] = np.stack(columns, axis=1)
    return by_gate


def config_of(text: object) -> dict[str, Any]:
    """Parse the configuration of a run from its JSON; empty where the text is no JSON object."""
    try:
        config = json.loads(text) if isinstance(text, str) else {}
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def layer_order(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the layers of a network in its order, from its configurations, by the names that its points have."""
    lists = [layers for config in configs if isinstance(layers := config.get("layers"), dict | list)]
    return list(dict.fromkeys(clean_name(name) for layers in lists for name in layers))


def worst_layers(rows: Sequence[Row], most: int) -> list[str]:
    """Return at most `most` layers, in their order: those with the largest share of scores above 1 in any phase."""
    worst: dict[str, float] = {}
    for row in rows:
        worst[row.key.layer] = np.fmax(worst.get(row.key.layer, 0.0), row.share)
    kept = set(sorted(worst, key=lambda layer: -worst[layer])[:most])
    return [layer for layer in worst if layer in kept]


def name_of(key: Key, phases: Collection[str]) -> str:
    """Return what a series is called in a sentence; with its phase where there are several."""
    what = f"the {key.gate} {'weights' if key.gate in PARAMS else 'gate'} of {key.layer}"
    if key.layer == MODEL:
        what = f"the {key.gate}"
    elif key.layer == OPTIMIZER:
        what = f"the optimizer's {key.gate}"
    elif key.layer == DATA:
        what = f"the {key.gate}" if key.gate in (FEED, TARGETS) else f"the input {key.gate}"
    return what + (f", {key.phase}" if len(phases) > 1 and key.phase else "")
