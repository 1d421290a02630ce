"""The Flux of the task that keeps hourly aggregates of what is written, for histories that outlive the points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gatewatch.collector.schema import SCHEMA, hourly_fields

TASK: Final = "Gatewatch hourly"
LOOK_BACK_HOURS: Final = 25
"""Each run of the task aggregates this many whole hours again. So the aggregates include points that arrive late, such
as after a day without a network, but no points that are older when they arrive."""

_MEASUREMENTS: Final = [name for name, fields in SCHEMA.items() if any(field.hourly for field in fields)]
_TEXTS: Final = [field.name for name in _MEASUREMENTS for field in SCHEMA[name] if field.type is str]


def hourly_task(source: str, target: str, org: str) -> str:
    """Return the Flux of the task. Measurements, tags and fields keep their names, so that a query reads alike in both
    buckets; a point's time is the beginning of its hour.

    Args:
        source, target: ids of the buckets that it reads and writes: hexadecimal, as InfluxDB makes them.
        org: the organisation's id.
    """
    measurements, worst, last, text = map(
        _pattern, (_MEASUREMENTS, hourly_fields("max"), hourly_fields("last"), _TEXTS)
    )
    return f"""\
// Written by Gatewatch's set-up, which puts it back where it was changed; to do without it make the task inactive.
import "date"

option task = {{name: "{TASK}", every: 1h, offset: 10m}}

stop = date.truncate(t: now(), unit: 1h)
start = date.sub(d: {LOOK_BACK_HOURS}h, from: stop)
points = from(bucketID: "{source}")
    |> range(start: start, stop: stop)
    |> filter(fn: (r) => r._measurement =~ /{measurements}/)
hourly = (fn, tables=<-) => tables
    |> aggregateWindow(every: 1h, fn: fn, createEmpty: false, timeSrc: "_start")
    |> to(bucketID: "{target}", orgID: "{org}")

points
    |> filter(fn: (r) => r._field !~ /{worst}/ and r._field !~ /{last}/ and r._field !~ /{text}/)
    |> hourly(fn: mean)
points |> filter(fn: (r) => r._field =~ /{worst}/) |> hourly(fn: max)
points |> filter(fn: (r) => r._field =~ /{last}/) |> hourly(fn: last)
"""


def _pattern(names: Iterable[str]) -> str:
    return f"^({'|'.join(names)})$"
