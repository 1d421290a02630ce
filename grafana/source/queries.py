"""Queries that more than one dashboard asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gatewatch.collector.cells import GATES
from gatewatch.collector.schema import (
    DIED_SECONDS,
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    HISTOGRAM_BINS,
    HISTOGRAM_FIELDS,
    RUNS,
)
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import Series, chosen, dictionary, flux, keep_where, pipe, points
from grafana.source.flux_steps import (
    GOES_ON,
    column_values,
    extend,
    group,
    keep,
    largest,
    map_to,
    window,
)

OF_RUN: Final = (chosen("run"), chosen("phase"))
OF_LAYER: Final = (*OF_RUN, chosen("layer"))
CONSENSUS: Final = 'r.detector == "consensus"'
STATES: Final = {"live": "green", "completed": "blue", "interrupted": "yellow", "died": "red", "failed": "red"}
"""State of a run → its colour."""
_THROUGH_TANH: Final = " or ".join(
    f"r.gate == {literal(name)}" for name, gate in GATES.items() if gate.scale.through_tanh
)


def life() -> str:
    """Return the expression for a run's state, from its last event and the event's time, as `gatewatch runs` has it."""
    silent = f"int(v: now()) - int(v: r._time) > {int(DIED_SECONDS * 1e9)}"
    return f'if {GOES_ON} then (if {silent} then "died" else "live") else r._value'


def state() -> str:
    """Return the state of the chosen run."""
    read = points(RUNS, ["event"], *OF_RUN, start="0", stop="")
    return read + pipe("last()", "group()", 'sort(columns: ["_time"])', "last()", map_to(f"_value: {life()}"))


def series(
    measurement: str, fields: Sequence[str], *where: str, fn: str = "mean", by: Sequence[str] = ("layer", "gate")
) -> Series:
    """Return fields over time, one value per window and series; `by` are the tags that distinguish the series."""
    return Series(points(measurement, fields, *where) + window(fn, *by), by)


def derived(field: str, *where: str, by: Sequence[str] = ("gate",)) -> Series:
    """Return a derived metric of the chosen layers over time."""
    return series(GATE_DERIVED, [field], *OF_LAYER, *where, by=by)


def last_value(field: str, *where: str, measurement: str = GATE_DERIVED) -> str:
    """Return the query for one number: the largest of the newest values of the series in the chosen layer."""
    read = points(measurement, [field], *OF_LAYER, *where)
    return read + pipe("last()", "group()", "max()", keep("_time", "_value"))


def scores(*where: str, **times: str) -> str:
    """Return the anomaly scores of the consensus; for `times` see `points`."""
    return points(GATE_SCORES, ["anomaly_score"], CONSENSUS, *where, **times)


def worst_score(*where: str, columns: Sequence[str] = ("_time", "_value"), **times: str) -> str:
    """Return the largest score in a time range; for `times` see `points`."""
    return scores(*where, **times) + pipe("max()", "group()", "max()", keep(*columns))


def worst_by(read: str, *tags: str) -> str:
    """Return the query for the largest value per window among all series that share these tags."""
    return read + window("max", *tags) + window("max", *tags)


def only_largest(name: str, most: int, peak: str, read: str, fn: str, labels: tuple[str, str]) -> Series:
    """Return only the series with the largest values, over time.

    Args:
        name: name of the list of their keys in the query.
        most: maximum number of series.
        peak: the step that reduces a series to one value, by which the series are compared.
        read: the points.
        fn: the function that reduces a window to one value.
        labels: the two tags that distinguish the series.
    """
    key = ' + "\\n" + '.join(f"r.{label}" for label in labels)
    query = flux(
        f"{name} = {read}" + pipe(peak, "group()", largest(most), map_to(f"name: {key}"), column_values("name")),
        read + window(fn, *labels) + pipe(keep_where(f"contains(set: {name}, value: {key})")),
    )
    return Series(query, labels)


def units(measurement: str, letter: str, gate: str) -> str:
    """Return the rows of a heatmap of the chosen layer, one per unit or position. A cell state is shown as its tanh.

    Args:
        measurement: gate_units or gate_time.
        letter: with which its fields begin.
        gate: the condition that leaves one gate.
    """
    return _rows(
        'import "math"',
        gate,
        (measurement, (), f"r._field =~ /^{letter}[0-9]/"),
        extend(f"_value: if {_THROUGH_TANH} then math.tanh(x: r._value) else r._value"),
        keep("_time", "_value", "_field"),
    )


def histogram(gate: str) -> str:
    """Return the rows of a heatmap, one per twentieth of the gate's scale, named by its lower end in percent."""
    names = dictionary({name: f"{i * 100 // HISTOGRAM_BINS:02d} %" for i, name in enumerate(HISTOGRAM_FIELDS)})
    return _rows(
        f'import "dict"\nnames = {names}',
        gate,
        (GATE_STATS, (), "r._field =~ /^hist_/"),
        keep("_time", "_value", "_field"),
        extend('_field: dict.get(dict: names, key: r._field, default: "")'),
    )


def _rows(begin: str, gate: str, what: tuple[str, Sequence[str], str], *steps: str) -> str:
    """Return a query for the rows of a heatmap, one field per row, up to the last capture.

    A window without a capture has what the one before has: Grafana draws a gap in black, as if it were a low value, and
    markets close at weekends.

    Args:
        begin: the first lines.
        gate: the condition that leaves one gate.
        what: the measurement, its fields, and the condition that leaves the rows' fields.
        steps: what is done with the windows.
    """
    measurement, fields, rows = what
    return flux(
        begin,
        f"last = {points(GATE_STATS, ['step'], *OF_LAYER, gate)}"
        + pipe("last()", "group()", 'max(column: "_time")', column_values("_time")),
        "end = if length(arr: last) > 0 then time(v: int(v: last[0]) + 1) else v.timeRangeStop",
        points(measurement, fields, rows, *OF_LAYER, gate, stop="end")
        + pipe(
            "aggregateWindow(every: v.windowPeriod, fn: mean)",
            "fill(usePrevious: true)",
            keep_where("exists r._value"),
            *steps,
            group("_field"),
        ),
    )
