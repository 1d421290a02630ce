"""Queries that more than one dashboard asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gatewatch.collector.cells import GATES
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, HISTOGRAM_BINS, HISTOGRAM_FIELDS, RUNS
from gatewatch.jobs.findings.run_state import DIED_SECONDS
from grafana.source.flux import chosen, flux, points, text, window

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


def life(column: str = "_value", time: str = "_time") -> str:
    """What a run is, by its last event and by when that was: the same that `gatewatch runs` says."""
    silent = f"int(v: now()) - int(v: r.{time}) > {int(DIED_SECONDS * 1e9)}"
    going = f'r.{column} == "started" or r.{column} == "heartbeat"'
    return f'if {going} then (if {silent} then "died" else "live") else r.{column}'


def state() -> str:
    """What the chosen run is."""
    return flux(
        points(RUNS, ["event"], chosen("run"), chosen("phase"), start="0", stop=""),
        "  |> last()",
        "  |> group()",
        '  |> sort(columns: ["_time"])',
        "  |> last()",
        f"  |> map(fn: (r) => ({{_value: {life()}}}))",
    )


def derived(field: str, *where: str, tags: Iterable[str] = ("layer", "gate")) -> str:
    """A derived metric over time."""
    return flux(points(GATE_DERIVED, [field], *where), window("mean", *tags))


def newest(measurement: str, field: str, *where: str, of: str = "max") -> str:
    """One number: the newest value, or that of the series where it is largest."""
    return flux(points(measurement, [field], *where), "  |> last()", "  |> group()", f"  |> {of}()", *_only_value())


def worst_score(*where: str) -> str:
    """The largest score in the time range."""
    return flux(
        points(GATE_SCORES, ["anomaly_score"], CONSENSUS, *where),
        "  |> max()",
        "  |> group()",
        "  |> max()",
        *_only_value(),
    )


def units(measurement: str, letter: str, gate: str) -> str:
    """The rows of a heatmap of the chosen layer: a unit, or a position, each. Of the cell state it is the tanh.

    Args:
        measurement: gate_units or gate_time.
        letter: with which its fields begin.
        gate: the condition that leaves one gate.
    """
    return flux(
        'import "math"',
        _every(gate),
        points(measurement, (), f"r._field =~ /^{letter}[0-9]/", *OF_LAYER, gate),
        "  |> aggregateWindow(every: every, fn: mean, createEmpty: false)",
        f"  |> map(fn: (r) => ({{r with _value: if {_THROUGH_TANH} then math.tanh(x: r._value) else r._value}}))",
        '  |> keep(columns: ["_time", "_value", "_field"])',
        '  |> group(columns: ["_field"])',
    )


def histogram(gate: str) -> str:
    """The rows of a heatmap: a twentieth of the gate's scale each, named by its lower end in percent of the scale."""
    names = ", ".join(
        f"{text(name)}: {text(f'{i * 100 // HISTOGRAM_BINS:02d} %')}" for i, name in enumerate(HISTOGRAM_FIELDS)
    )
    return flux(
        'import "dict"',
        f"names = [{names}]",
        _every(gate),
        points(GATE_STATS, (), "r._field =~ /^hist_/", *OF_LAYER, gate),
        "  |> aggregateWindow(every: every, fn: mean, createEmpty: false)",
        '  |> keep(columns: ["_time", "_value", "_field"])',
        '  |> map(fn: (r) => ({r with _field: dict.get(dict: names, key: r._field, default: "")}))',
        '  |> group(columns: ["_field"])',
    )


def _every(gate: str) -> str:
    """Windows as narrow as the panel shows, but none so narrow that it holds no capture: a heatmap would have gaps.

    Captures that come half as late again as usual still find their window.
    """
    taken = points(GATE_STATS, ["step"], *OF_LAYER, gate)
    return flux(
        f"taken = {taken}",
        "first = taken |> first()",
        "last = taken |> last()",
        'ends = union(tables: [first, last]) |> group() |> sort(columns: ["_time"])',
        '  |> findColumn(fn: (key) => true, column: "_time")',
        "counts = taken |> count() |> group() |> max()",
        '  |> findColumn(fn: (key) => true, column: "_value")',
        "many = length(arr: counts) > 0 and length(arr: ends) > 1 and counts[0] > 1",
        "apart = if many then (int(v: ends[length(arr: ends) - 1]) - int(v: ends[0])) / (counts[0] - 1) else 0",
        "least = apart + apart / 2",
        "every = if least > int(v: v.windowPeriod) then duration(v: least) else v.windowPeriod",
    )


def _only_value() -> tuple[str, ...]:
    return ('  |> keep(columns: ["_time", "_value"])',)
