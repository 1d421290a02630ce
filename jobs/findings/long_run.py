"""Read a run of so many captures that their points do not fit in memory.

What findings are made from is read of every capture, without the fields that they do not need: scores, metrics, and
what each parameter learned. Of the gates' statistics the store gives the extremes of spans of captures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from gatewatch.collector.schema import (
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    GATE_UNITS,
    LAYER_UPDATES,
    TRAIN_METRICS,
)
from gatewatch.jobs.findings.long_search import TAGS, causes_of, present, search_apart
from gatewatch.jobs.findings.run_limits import is_stated
from gatewatch.jobs.findings.series import MAX_POINTS, Key, by_series, one_detector
from gatewatch.jobs.findings.unjudged import Counts
from gatewatch.jobs.frames import by_phase, numbers, times

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gatewatch.collector.store import Store

LONG: Final = 4_000
"""A run with more captures in a phase is not read whole."""
_PICTURED: Final = 256
"""So many captures of a long phase are read for its heatmap, which has fewer columns."""
_LEARNING: Final = (
    *("gradient_norm", "gradient_norm_clipped", "update_ratio", "update_frequency"),
    *("nan_count", "inf_count", "step"),
)
"""The fields of `layer_updates` that are judged or drawn."""


@dataclass(frozen=True, slots=True)
class Points:
    """The points of a run before they are put on their axes.

    Attributes:
        metrics, captures, all_scores: points of `train_metrics`, `gate_stats` and `gate_scores`.
        detector: the one whose scores are shown.
        scores, derived, updates: series → points of that detector, of `gate_derived` and of `layer_updates`.
        counts: series → how many captures.
        drawn: phase → how many spans of captures are drawn, and of how many captures; empty where all captures are.
    """

    metrics: pd.DataFrame
    captures: pd.DataFrame
    all_scores: pd.DataFrame
    detector: str
    scores: Mapping[Key, pd.DataFrame]
    derived: Mapping[Key, pd.DataFrame]
    updates: Mapping[Key, pd.DataFrame]
    counts: Mapping[Key, Counts]
    drawn: Mapping[str, tuple[int, int]]


def long_phases(store: Store, run: str, longest: int = LONG) -> dict[str, NDArray[np.int64]]:
    """Return phase → the times of its captures; empty where none has more than `longest`.

    The gates of a layer are captured together. Layers need not be: one that cannot be replayed is recorded no longer.
    """
    newest = store.newest(GATE_STATS, run=run, prefix_tags=True)
    if not set(TAGS[1:]) <= set(newest.columns):
        return {}
    found = {}
    for phase, rows in by_phase(newest):
        gates = rows[list(TAGS[1:])].fillna("").drop_duplicates("layer").to_numpy().tolist()
        tags = [{"phase": phase, **dict(zip(TAGS[1:], gate, strict=True))} for gate in gates]
        each = [store.find(GATE_STATS, run=run, tags=one, fields=["step"]) for one in tags]
        found[phase] = np.unique(np.concatenate([times(points) for points in each]))
    return found if any(len(each) > longest for each in found.values()) else {}


def read_long(
    store: Store,
    run: str,
    captured: Mapping[str, NDArray[np.int64]],
    layers: Sequence[str] = (),
    spans: int = MAX_POINTS,
) -> Points:
    """Read the points of a long run.

    Args:
        store: where they are.
        run: its name.
        captured: from `long_phases`.
        layers: names of the network's layers, in its order.
        spans: of captures that are drawn of a phase.
    """
    edges = {phase: _edges(at, spans) for phase, at in captured.items() if len(at)}
    with ThreadPoolExecutor(1) as pool:  # SQLite summarises without Python's lock, which takes half of the time
        apart = pool.submit(search_apart, store, run, edges)
        name, scores, shown = _scores(store, run, layers)
        metrics, updates = store.find(TRAIN_METRICS, run=run, prefix_tags=True), _updates(store, run, layers)
        searched = apart.result()
    all_scores = pd.concat([shown, *searched.stated], ignore_index=True).sort_values("time", kind="stable")
    return Points(
        metrics,
        searched.captures,
        all_scores.reset_index(drop=True),
        name,
        scores,
        by_series(_derived(store, run, edges), layers=layers),
        updates,
        searched.counts,
        {phase: (len(each) - 1, len(captured[phase])) for phase, each in edges.items()},
    )


def _edges(at: NDArray[np.int64], spans: int) -> list[int]:
    """Return where spans with equally many captures begin, and the end of the last."""
    begins = np.linspace(0, len(at), min(spans, len(at)) + 1).astype(int)[:-1]
    return [*np.unique(at[begins]).tolist(), int(at[-1]) + 1]


def _derived(store: Store, run: str, edges: Mapping[str, Sequence[int]]) -> pd.DataFrame:
    """Return the newest points of `gate_derived`: those of the last span of each phase, and the last one."""
    frames = [store.newest(GATE_DERIVED, run=run, prefix_tags=True)]
    frames += [
        store.find(GATE_DERIVED, run=run, tags={"phase": phase}, start=own[-2], prefix_tags=True)
        for phase, own in edges.items()
    ]
    return pd.concat(frames, ignore_index=True).sort_values("time", kind="stable").reset_index(drop=True)


def _scores(store: Store, run: str, layers: Sequence[str]) -> tuple[str, dict[Key, pd.DataFrame], pd.DataFrame]:
    """Return the detector that is shown, its scores by series, and some points: its largest, and all detectors' newest.

    Of the scores above 1 all fields are there, of the others the score alone.
    """
    newest = store.newest(GATE_SCORES, run=run, prefix_tags=True)
    name, shown = one_detector(newest)
    parts, scores = [newest], dict[Key, pd.DataFrame]()
    for key in by_series(shown, layers=layers):
        tags = {**key._asdict(), **({"detector": name} if "detector" in newest else {})}
        own = store.find(GATE_SCORES, run=run, tags=tags, fields=["anomaly_score", "step"], prefix_tags=True)
        own = own[["time", *present(own, ("anomaly_score", "step"))]].assign(phase=key.phase)
        if numbers(own, "anomaly_score").max(initial=0.0, where=np.isfinite(numbers(own, "anomaly_score"))) >= 1:
            above = store.find(GATE_SCORES, run=run, tags=tags, prefix_tags=True, at_least=("anomaly_score", 1.0))
            parts.append(_largest(above))
            own = _with_causes(own, above)
        scores[key] = own
    return name, scores, pd.concat(parts, ignore_index=True)


def _largest(above: pd.DataFrame) -> pd.DataFrame:
    """Return the points with the largest score: of those that state something broken, and of the others."""
    score, stated = numbers(above, "anomaly_score"), is_stated(above)
    places = [int(np.argmax(np.where(own, score, 0.0))) for own in (stated, ~stated) if own.any()]
    return above.iloc[sorted(set(places))]


def _with_causes(scores: pd.DataFrame, above: pd.DataFrame) -> pd.DataFrame:
    """Give the scores above 1 their causes and source; of the others there are none, and they take no memory."""
    place = np.searchsorted(times(scores), times(above))
    columns: dict[str, Any] = {}
    for name in causes_of(above):
        values = np.full(len(scores), np.nan)
        values[place] = numbers(above, name)
        columns[name] = pd.arrays.SparseArray(values)
    if "source" in above:
        sources = np.full(len(scores), None, dtype=object)
        sources[place] = above["source"].to_numpy()
        columns["source"] = sources
    return scores.assign(**columns)


def some_units(store: Store, run: str, captures: pd.DataFrame) -> pd.DataFrame:
    """Return the points by unit of some captures of each phase, evenly spread.

    Args:
        store: where they are.
        run: its name.
        captures: from `read_long`.
    """
    frames = []
    for phase, rows in by_phase(captures):
        at = np.unique(times(rows))
        for time in at[np.unique(np.linspace(0, len(at) - 1, min(_PICTURED, len(at))).astype(int))].tolist():
            points = store.find(GATE_UNITS, run=run, tags={"phase": phase}, start=time, stop=time + 1, prefix_tags=True)
            frames += [] if points.empty else [points]
    united = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return united.sort_values("time", kind="stable").reset_index(drop=True) if frames else united


def _updates(store: Store, run: str, layers: Sequence[str]) -> dict[Key, pd.DataFrame]:
    """Return the points of each parameter with the fields that are judged and drawn."""
    found = {}
    for key in by_series(store.newest(LAYER_UPDATES, run=run, prefix_tags=True), "param", layers):
        tags = {"phase": key.phase, "layer": key.layer, "param": key.gate}
        own = store.find(LAYER_UPDATES, run=run, tags=tags, fields=_LEARNING, prefix_tags=True)
        found[key] = own[["time", *present(own, _LEARNING)]].assign(phase=key.phase)
    return found
