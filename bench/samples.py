"""Points as a training run gives them, and the same as influxdb-client has them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import influxdb_client

from gatewatch.collector.cells import LSTM
from gatewatch.collector.schema import GATE_STATS_FIELDS, FieldValue, Point

LAYERS = 4
FIRST = 1_700_000_000_000_000_000
APART = 1_000_003

_COUNTS = ("dead_units", "nan_count", "inf_count", "step", "epoch")
_STATISTICS = tuple(name for name in GATE_STATS_FIELDS if name not in _COUNTS)

Fields = Sequence[Mapping[str, FieldValue]]


def shapes(count: int) -> dict[str, Fields]:
    """By what they are called, so many rows of fields each: those of `gate_stats`, and eight floats."""
    return {
        f"gate_stats, {len(GATE_STATS_FIELDS)} fields": _rows(count, _STATISTICS, _COUNTS),
        "8 floats": _rows(count, tuple(f"field_{i}" for i in range(8))),
    }


def points(measurement: str, count: int, fields: Fields) -> list[Point]:
    """Captures of a few layers; the rows of fields come again where there are fewer than points."""
    tags = [
        {"run": "goog-lstm-1", "phase": "train", "layer": f"lstm_{layer}", "gate": gate}
        for layer in range(LAYERS)
        for gate in LSTM.gate_names
    ]
    return [Point(measurement, tags[i % len(tags)], fields[i % len(fields)], FIRST + i * APART) for i in range(count)]


def as_theirs(points: Sequence[Point]) -> list[influxdb_client.Point]:
    """The points as influxdb-client's."""
    made = []
    for point in points:
        theirs = influxdb_client.Point(point.measurement)
        for key, text in point.tags.items():
            theirs.tag(key, text)
        for name, value in point.fields.items():
            theirs.field(name, value)
        made.append(theirs.time(point.time))
    return made


def _rows(count: int, floats: tuple[str, ...], integers: tuple[str, ...] = ()) -> Fields:
    draw = random.Random(1).gauss
    return [{name: draw(0.5, 0.2) for name in floats} | dict.fromkeys(integers, i) for i in range(count)]
