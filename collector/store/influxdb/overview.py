"""InfluxQL that gives an overview of runs. Pure: the statements, and what their answers say."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, LAYER_UPDATES, RUNS, TRAIN_METRICS
from gatewatch.collector.store.frame import Block
from gatewatch.collector.store.influxdb.influxql import identifier, typed, where
from gatewatch.collector.store.selection import Selection, series_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from gatewatch.collector.store.influxdb.influxql import Part
    from gatewatch.collector.store.selection import Reduction

_CHANGING: Final = {
    RUNS: "event",
    TRAIN_METRICS: "step",
    GATE_STATS: "step",
    LAYER_UPDATES: "step",
    GATE_SCORES: "anomaly_score",
    GATE_DERIVED: "window_s",
}
"""Measurement → a field that each of its points has."""


def newest(selection: Selection, fields: Iterable[tuple[str, type]]) -> tuple[str, dict[str, str]]:
    """Return the statement that selects the newest point of each series, and the values bound in it."""
    clause, values = where(selection)
    statement = f"SELECT {typed(fields)} FROM {identifier(selection.measurement)} {clause}"  # noqa: S608 - names are quoted, values bound
    return f"{statement} GROUP BY * ORDER BY time DESC LIMIT 1", values


def ends(selection: Selection, field: tuple[str, type]) -> tuple[str, dict[str, str]]:
    """Return the statements that select the first and the last point that have a field, and the values bound in it."""
    clause, values = where(selection)
    first, last = (
        f"SELECT {typed([field], function)} FROM {identifier(selection.measurement)} {clause}"  # noqa: S608 - as above
        for function in ("FIRST", "LAST")
    )
    return f"{first}; {last}", values


def extremes(selection: Selection, field: tuple[str, type], width: int) -> tuple[str, dict[str, str]]:
    """Return the statement that selects the smallest and the largest value in each span of time, and what it binds.

    Args:
        selection: which points; bounded in time, or InfluxDB would count spans from 1970 on.
        field: its name and type.
        width: of a span, in nanoseconds.
    """
    clause, values = where(selection)
    both = f"{typed([field], 'MIN')}, {typed([field], 'MAX')}"
    statement = f"SELECT {both} FROM {identifier(selection.measurement)} {clause}"  # noqa: S608 - as above
    return f"{statement} GROUP BY time({width}ns), * fill(none)", values


def extreme_blocks(parts: Iterable[Part]) -> Iterator[Block]:
    """Yield the points of the answer to `extremes`."""
    for part in parts:
        rows = part["values"]
        low, high = (np.array([row[i] for row in rows], np.float64) for i in (1, 2))
        times = np.array([row[0] for row in rows], np.int64)
        yield Block([dict(series_of(part.get("tags") or {}))], [len(rows)], times, {"low": low, "high": high})


def summaries(
    selection: Selection, fields: Sequence[tuple[str, type, Reduction]], edges: Sequence[int]
) -> tuple[str, dict[str, str]]:
    """Return the statements that summarise points between each two edges, and the values bound in them.

    Args:
        selection: which points; not bounded in time.
        fields: name, type, and what is wanted of it.
        edges: nanoseconds, ascending.
    """
    functions = [("COUNT", *fields[0][:2]), *((how.upper(), name, kind) for name, kind, how in fields)]
    wanted = ", ".join(typed([(name, kind)], function) for function, name, kind in functions)
    statements, values = [], dict[str, str]()
    for start, stop in pairwise(edges):
        clause, values = where(selection._replace(start=start, stop=stop))
        statements.append(f"SELECT {wanted} FROM {identifier(selection.measurement)} {clause} GROUP BY *")  # noqa: S608 - as above
    return "; ".join(statements), values


def summary_blocks(parts: Iterable[Part], names: Sequence[str]) -> Iterator[Block]:
    """Yield the points of the answer to `summaries`."""
    for part in parts:
        for time, points, *numbers in part["values"]:
            if points:
                fields = {name: np.array([value], np.float64) for name, value in zip(names, numbers, strict=True)}
                counts = {"points": np.array([points], np.int64)}
                yield Block([dict(series_of(part.get("tags") or {}))], [1], np.array([time], np.int64), fields | counts)


def newest_of_runs(run: str | None) -> tuple[str, dict[str, str]]:
    """Return the statements that select the newest value of each measurement of a run, and the values bound in them."""
    statements, values = [], dict[str, str]()
    for measurement, field in _CHANGING.items():
        clause, values = where(Selection(measurement, {} if run is None else {"run": run}))
        last = f"SELECT LAST({identifier(field)}::field) FROM {identifier(measurement)} {clause}"  # noqa: S608 - as above
        statements.append(f'{last} GROUP BY "run"::tag')
    return "; ".join(statements), values


def revisions(parts: Iterable[Part]) -> dict[str, str]:
    """Return run → the newest values of its measurements, from the answer to `newest_of_runs`."""
    by_run: dict[str, list[str]] = {}
    for part in parts:
        tags: Mapping[str, str] = part.get("tags") or {}
        if run := tags.get("run"):
            time, value = part["values"][0]
            by_run.setdefault(run, []).append(f"{part['name']} {time} {value}")
    return {run: " ".join(sorted(texts)) for run, texts in by_run.items()}
