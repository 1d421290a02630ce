"""The rows of heatmaps: a table for each unit, each position in the sequence, or each part of a gate's scale.

Grafana draws a row for each table, in the order in which InfluxDB sends them: that of their names. So numbers in names
are padded with spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gatewatch.collector.cells import GATES
from gatewatch.collector.schema import (
    GATE_STATS,
    GATE_TIME,
    GATE_UNITS,
    HISTOGRAM_BINS,
    HISTOGRAM_FIELDS,
    MAX_PROFILE,
)
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import dictionary, flux, pipe, points
from grafana.source.flux_steps import column_values, extend, group, held, keep
from grafana.source.queries import OF_LAYER, last_capture

_THROUGH_TANH: Final = " or ".join(
    f"r.gate == {literal(name)}" for name, gate in GATES.items() if gate.scale.through_tanh
)


def units(gate: str) -> str:
    """Return the mean activation of each unit, or of each group of neighbouring units, of the chosen layer.

    Args:
        gate: the condition that leaves one gate. A cell state is shown as its tanh.
    """
    return _profile(GATE_UNITS, gate, "u", ("unit", "group"))


def positions(gate: str) -> str:
    """Return the mean activation at each position of the sequence, or in each part of it; for `gate` see `units`."""
    return _profile(GATE_TIME, gate, "t", ("bar", "part"))


def distribution(gate: str) -> str:
    """Return the share of the activations in each twentieth of the gate's scale; for `gate` see `units`."""
    width = 100 // HISTOGRAM_BINS
    names = dictionary({name: f"{i * width:2d} to {(i + 1) * width} %" for i, name in enumerate(HISTOGRAM_FIELDS)})
    return _rows(
        f'import "dict"\nnames = {names}',
        gate,
        (GATE_STATS, "r._field =~ /^hist_/"),
        'dict.get(dict: names, key: r._field, default: "")',
    )


def _profile(measurement: str, gate: str, letter: str, words: Sequence[str]) -> str:
    """Return the rows of a profile.

    Args:
        measurement: gate_units or gate_time.
        gate: see `units`.
        letter: with which its fields begin.
        words: what a row is, and what it is where there are as many as a profile can have: then each may stand for
            several neighbours.
    """
    one, several = words
    two_digits = f'regexp.replaceAllString(r: /^{letter}00/, v: r._field, t: "  ")'
    full = points(measurement, [f"{letter}{MAX_PROFILE - 1:03d}"], *OF_LAYER, gate)
    return _rows(
        flux(
            'import "math"',
            'import "regexp"',
            f"full = {full}" + pipe("last()", "group()", column_values("_value")),
            f'word = if length(arr: full) > 0 then "{several}" else "{one}"',
        ),
        gate,
        (measurement, f"r._field =~ /^{letter}[0-9]/"),
        f'word + regexp.replaceAllString(r: /^{letter}0/, v: {two_digits}, t: " ")',
        extend(f"_value: if {_THROUGH_TANH} then math.tanh(x: r._value) else r._value"),
    )


def _rows(begin: str, gate: str, what: tuple[str, str], name: str, *steps: str) -> str:
    """Return a query for rows, one field per row, up to the last capture.

    A window without a capture has what the one before has: Grafana draws a gap in black, as if it were a low value, and
    markets close at weekends.

    Args:
        begin: the first lines.
        gate: the condition that leaves one gate.
        what: the measurement, and the condition that leaves the rows' fields.
        name: the expression for the name of a row.
        steps: what is done with the windows.
    """
    measurement, fields = what
    return flux(
        begin,
        f"captured = {last_capture(*OF_LAYER, gate)}",
        "end = if length(arr: captured) > 0 then time(v: int(v: captured[0]) + 1) else v.timeRangeStop",
        points(measurement, (), fields, *OF_LAYER, gate, stop="end")
        + pipe(held("mean"), *steps, keep("_time", "_value", "_field"), extend(f"_field: {name}"), group("_field")),
    )
