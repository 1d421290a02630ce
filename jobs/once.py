"""One pass over a store: reads captures, writes `gate_derived` and `gate_scores`.

What is written of a capture depends on it and on earlier captures of its run alone, so a pass run twice, or late,
writes the same points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from collector.errors import ConfigError, WriteUnavailable
from collector.schema import (
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    GATE_STATS_FIELDS,
    GATE_UNITS,
    HISTOGRAM_FIELDS,
    FieldValue,
    Point,
    gate_scale,
)
from collector.store import Store
from jobs.derive import MEMORY_GATES, RANK_CAPTURES, drift, effective_ranks, memory_timescale
from jobs.detect import USUAL, Forest
from jobs.features import FEATURES, WARM_UP, deviations

if TYPE_CHECKING:
    import pandas as pd

DETECTOR: Final = "isolation_forest"
_CAUSES: Final = 3
"""The most `why_` fields of a score: its largest deviations."""

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Series:
    """The captures of one layer and gate, oldest first.

    Attributes:
        tags: run, phase, layer, gate and the user's own.
        time: (n,), nanoseconds.
        stats: field of `gate_stats` → (n,), NaN where a capture has none.
        units: (n, units) of `gate_units`, NaN where a capture has none.
    """

    tags: Mapping[str, str]
    time: NDArray[np.int64]
    stats: Mapping[str, Array]
    units: Array


@dataclass(slots=True)
class Pass:
    """What a pass did with a run.

    Attributes:
        run: its name.
        captures: moments at which its gates were captured.
        phases: phase → moments of it; the fewest where the user's own tags part it.
        derived, scored: points written.
        anomalous: scores above 1 among them.
        unchanged: whether every capture had its points already.
        failed: why nothing was done.
    """

    run: str
    captures: int = 0
    phases: dict[str, int] = field(default_factory=dict)
    derived: int = 0
    scored: int = 0
    anomalous: int = 0
    unchanged: bool = False
    failed: str | None = None


def run_pass(
    store: Store, run: str | None = None, progress: Callable[[str, int, int], None] | None = None
) -> list[Pass]:
    """Derive and score the runs of a store; one whose captures all have their points already is left as it is.

    Args:
        store: where the captures are, and where the points go.
        run: only this run.
        progress: told the run, its number and the number of runs before each.

    Returns:
        What was done, by run, newest run first.

    Raises:
        ConfigError: there is no such run.
        WriteUnavailable: the store does not answer.
    """
    names = list(store.runs()["run"])
    if run is not None:
        if run not in names:
            known = f"it holds {', '.join(names[:5])}" if names else "it is empty"
            raise ConfigError(f"run {run!r} is not in {store.url}; {known}")
        names = [run]
    passes = []
    for number, name in enumerate(names):
        if progress is not None:
            progress(name, number, len(names))
        try:
            passes.append(_pass_over(store, name))
        except (ConfigError, WriteUnavailable):
            raise
        except Exception as error:  # one run's points are odd: the others have their scores all the same
            passes.append(Pass(name, failed=f"{type(error).__name__}: {error}"))
    return passes


def _pass_over(store: Store, run: str) -> Pass:
    stats = store.read(GATE_STATS, run=run)
    result = Pass(run, captures=stats["time"].nunique())
    tags = _tag_columns(stats)
    result.phases = _captures_by_phase(stats, tags)
    if stats.empty or _keys(stats, tags) <= _keys(store.read(GATE_DERIVED, run=run), tags):
        result.unchanged = True
        return result
    series = list(_series(stats, store.read(GATE_UNITS, run=run), tags))
    scores = [point for group in _by_phase(series) for point in score_points(group)]
    derived = [point for one in series for point in derived_points(one)]
    # The derived points come last: they say that the run is done with, also to the pass after one that was killed.
    store.write(scores)
    store.write(derived)
    result.derived, result.scored = len(derived), len(scores)
    result.anomalous = sum(int(point.fields["anomalous"]) for point in scores)
    return result


def derived_points(series: Series) -> list[Point]:
    """The `gate_derived` points of a series, one for each capture."""
    stats, ranks = series.stats, effective_ranks(series.units)
    drifts = drift(np.stack([stats[name] for name in HISTOGRAM_FIELDS], axis=1))
    saturation = stats["saturated_low"] + stats["saturated_high"]
    points = []
    for k, time in enumerate(series.time):
        start = int(series.time[max(0, k + 1 - RANK_CAPTURES)])
        fields: dict[str, FieldValue] = {"window_s": (int(time) - start) / 1e9}
        measured: dict[str, float | None] = {
            "saturation": float(saturation[k]),
            "drift": float(drifts[k]),
            "effective_rank": ranks[k],
            "memory_timescale": (
                memory_timescale(float(stats["mean"][k])) if series.tags["gate"] in MEMORY_GATES else None
            ),
        }
        fields |= {name: value for name, value in measured.items() if value is not None and np.isfinite(value)}
        if np.isfinite(stats["dead_units"][k]):
            fields["dead_units"] = int(stats["dead_units"][k])
        points.append(Point(GATE_DERIVED, series.tags, fields, int(time)))
    return points


def score_points(group: Sequence[Series]) -> list[Point]:
    """The `gate_scores` points of the series of one run and phase, by a forest of their common warm-up.

    No score for the warm-up, for a capture that is not finite, nor where the warm-up is too short to learn from.
    """
    times = np.unique(np.concatenate([series.time for series in group]))
    if len(times) <= WARM_UP:
        return []
    all_deviations = [deviations(_followed(series)[None])[0] for series in group]
    begins = [int(np.searchsorted(series.time, times[WARM_UP])) for series in group]
    try:
        forest = Forest(np.concatenate([rows[:begin] for rows, begin in zip(all_deviations, begins, strict=True)]))
    except ValueError:
        return []
    points = []
    for series, rows, begin in zip(group, all_deviations, begins, strict=True):
        scores = forest.score(rows[begin:])
        for k in np.flatnonzero(np.isfinite(scores)):
            capture = begin + int(k)
            score = float(scores[k])
            fields: dict[str, FieldValue] = {
                "anomaly_score": score,
                "anomalous": int(score > 1),
                "step": int(series.stats["step"][capture]),
                "model_id": forest.model_id,
            }
            if score > 1:
                fields |= _causes(rows[capture])
            tags = {**series.tags, "detector": DETECTOR}
            points.append(Point(GATE_SCORES, tags, fields, int(series.time[capture])))
    return points


def _causes(row: Array) -> dict[str, FieldValue]:
    largest = np.argsort(-np.abs(row), kind="stable")[:_CAUSES]
    return {f"why_{FEATURES[i]}": float(row[i]) for i in largest if abs(row[i]) >= USUAL}


def _followed(series: Series) -> Array:
    stats, scale = series.stats, gate_scale(series.tags["gate"])
    width = scale.high - scale.low
    return np.stack(
        [
            stats["mean"] / width,
            stats["std"] / width,
            stats["entropy"],
            stats["zero_crossing_rate"],
            stats["saturated_low"] + stats["saturated_high"],
        ],
        axis=1,
    )


def _tag_columns(frame: pd.DataFrame) -> list[str]:
    return [column for column in frame.columns if column != "time" and column not in GATE_STATS_FIELDS]


def _captures_by_phase(stats: pd.DataFrame, tags: Sequence[str]) -> dict[str, int]:
    """Phase → captures that its forest learns from and scores: those of the same tags, layer and gate apart."""
    shared = [tag for tag in tags if tag not in ("layer", "gate")]
    found: dict[str, int] = {}
    for values, times in stats.groupby(shared, dropna=False)["time"] if shared else ():
        named = dict(zip(shared, values, strict=True)).get("phase")
        phase = named if isinstance(named, str) else ""
        found[phase] = min(found.get(phase, len(times)), times.nunique())
    return found


def _keys(frame: pd.DataFrame, tags: Sequence[str]) -> set[tuple[Any, ...]]:
    if any(tag not in frame.columns for tag in tags):
        return set()
    return set(zip(*(frame[column].astype(object) for column in ("time", *tags)), strict=True))


def _series(stats: pd.DataFrame, units: pd.DataFrame, tags: list[str]) -> Iterator[Series]:
    by_unit = sorted(column for column in units.columns if column not in {"time", "step", *tags})
    units = units.reindex(columns=["time", *tags, *by_unit])
    frame = stats.merge(units, how="left", on=["time", *tags]) if by_unit else stats
    frame = frame.sort_values("time", kind="stable")
    for values, rows in frame.groupby(tags, dropna=False, sort=True):
        named = {tag: value for tag, value in zip(tags, values, strict=True) if isinstance(value, str)}
        known = rows[by_unit].dropna(axis=1, how="all")
        yield Series(
            tags=named,
            time=rows["time"].to_numpy(dtype="datetime64[ns]").astype(np.int64),
            stats={
                name: rows[name].to_numpy(dtype=float, na_value=np.nan) if name in rows else np.full(len(rows), np.nan)
                for name in GATE_STATS_FIELDS
            },
            units=known.to_numpy(dtype=float, na_value=np.nan),
        )


def _by_phase(series: Sequence[Series]) -> list[list[Series]]:
    groups: dict[tuple[tuple[str, str], ...], list[Series]] = {}
    for one in series:
        shared = tuple(sorted((key, value) for key, value in one.tags.items() if key not in ("layer", "gate")))
        groups.setdefault(shared, []).append(one)
    return list(groups.values())
