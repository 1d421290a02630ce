"""Queries that more than one dashboard asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gatewatch.collector.cells import GATES
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, HISTOGRAM_BINS, HISTOGRAM_FIELDS, RUNS
from gatewatch.jobs.findings.run_state import DIED_SECONDS
from grafana.source.flux import chosen, flux, keep, pipe, points, text, values, window

_THROUGH_TANH: Final = " or ".join(f"r.gate == {text(name)}" for name, gate in GATES.items() if gate.scale.through_tanh)
OF_LAYER: Final = (chosen("run"), chosen("phase"), chosen("layer"))
CONSENSUS: Final = 'r.detector == "consensus"'
STATES: Final = {
    "live": "green",
    "completed": "blue",
    "interrupted": "yellow",
    "died": "red",
    "failed": "red",
}
"""What a run may be, and its colour."""


def life() -> str:
    """Return the expression for the state of a run, from its last event and the time of that, as `gatewatch runs`."""
    silent = f"int(v: now()) - int(v: r._time) > {int(DIED_SECONDS * 1e9)}"
    going = 'r._value == "started" or r._value == "heartbeat"'
    return f'if {going} then (if {silent} then "died" else "live") else r._value'


def state() -> str:
    """Return the state of the chosen run."""
    return flux(
        points(RUNS, ["event"], chosen("run"), chosen("phase"), start="0", stop=""),
        pipe("last()", "group()", 'sort(columns: ["_time"])', "last()", f"map(fn: (r) => ({{_value: {life()}}}))"),
    )


def series(
    measurement: str, fields: Iterable[str], *where: str, fn: str = "mean", by: Iterable[str] = ("layer", "gate")
) -> str:
    """Return fields over time, a value for each window and series; `by` are the tags that tell series apart."""
    return flux(points(measurement, fields, *where), window(fn, *by))


def derived(field: str, *where: str, by: Iterable[str] = ("layer", "gate")) -> str:
    """Return a derived metric over time."""
    return series(GATE_DERIVED, [field], *where, by=by)


def last_value(measurement: str, field: str, *where: str) -> str:
    """Return one number: the newest value, of the series where it is largest."""
    return flux(points(measurement, [field], *where), pipe("last()", "group()", "max()", keep("_time", "_value")))


def worst_score(*where: str, columns: Iterable[str] = ("_time", "_value"), **times: str) -> str:
    """Return the largest score in a time range; for `times` see `points`."""
    read = points(GATE_SCORES, ["anomaly_score"], CONSENSUS, *where, **times)
    return flux(read, pipe("max()", "group()", "max()", keep(*columns)))


def only_largest(name: str, most: int, fn: str, key: str, read: str, windows: str) -> str:
    """Return series over time, of many those with the largest values.

    Args:
        name: of the list of their keys in the query.
        most: how many.
        fn: the step that makes one value of a series.
        key: the expression for a series' key.
        read: the points.
        windows: the steps that make values over time of them.
    """
    top = f'top(n: {most}, columns: ["_value"])'
    largest = pipe(fn, "group()", top, f"map(fn: (r) => ({{name: {key}}}))", values("name"))
    shown = pipe(f"filter(fn: (r) => contains(set: {name}, value: {key}))")
    return flux(f"{name} = {read}", largest, read, windows, shown)


_WINDOWS: Final = "aggregateWindow(every: every, fn: mean, createEmpty: false)"


def units(measurement: str, letter: str, gate: str) -> str:
    """Return the rows of a heatmap of the chosen layer: a unit or a position each. A cell state is shown as its tanh.

    Args:
        measurement: gate_units or gate_time.
        letter: with which its fields begin.
        gate: the condition that leaves one gate.
    """
    return flux(
        'import "math"',
        _every(gate),
        points(measurement, (), f"r._field =~ /^{letter}[0-9]/", *OF_LAYER, gate),
        pipe(
            _WINDOWS,
            f"map(fn: (r) => ({{r with _value: if {_THROUGH_TANH} then math.tanh(x: r._value) else r._value}}))",
            keep("_time", "_value", "_field"),
            'group(columns: ["_field"])',
        ),
    )


def histogram(gate: str) -> str:
    """Return the rows of a heatmap: a twentieth of the gate's scale each, named by its lower end in percent of it."""
    names = ", ".join(
        f"{text(name)}: {text(f'{i * 100 // HISTOGRAM_BINS:02d} %')}" for i, name in enumerate(HISTOGRAM_FIELDS)
    )
    return flux(
        'import "dict"',
        f"names = [{names}]",
        _every(gate),
        points(GATE_STATS, (), "r._field =~ /^hist_/", *OF_LAYER, gate),
        pipe(
            _WINDOWS,
            keep("_time", "_value", "_field"),
            'map(fn: (r) => ({r with _field: dict.get(dict: names, key: r._field, default: "")}))',
            'group(columns: ["_field"])',
        ),
    )


def _every(gate: str) -> str:
    """Return the lines that set `every`, the width of a heatmap's windows.

    It is the panel's, but at least 1.5 times the mean distance of captures: a window without one would be a gap.
    """
    taken = points(GATE_STATS, ["step"], *OF_LAYER, gate)
    return flux(
        f"taken = {taken}",
        "first = taken |> first()",
        "last = taken |> last()",
        'ends = union(tables: [first, last]) |> group() |> sort(columns: ["_time"])',
        pipe(values("_time")),
        "counts = taken |> count() |> group() |> max()",
        pipe(values("_value")),
        "many = length(arr: counts) > 0 and length(arr: ends) > 1 and counts[0] > 1",
        "apart = if many then (int(v: ends[length(arr: ends) - 1]) - int(v: ends[0])) / (counts[0] - 1) else 0",
        "least = apart + apart / 2",
        "every = if least > int(v: v.windowPeriod) then duration(v: least) else v.windowPeriod",
    )
