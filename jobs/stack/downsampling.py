"""The Flux of the task that keeps hourly aggregates of what is written, for histories that outlive the points."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import (
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    GATE_TIME,
    GATE_UNITS,
    LAYER_UPDATES,
    TRAIN_METRICS,
)

TASK: Final = "Gatewatch hourly"
LOOK_BACK_HOURS: Final = 25
"""Each run looks at so many whole hours, and writes them again: what came late, such as after a day without a network,
is in the aggregates too. What is older when it comes is not."""

_MEASUREMENTS: Final = (GATE_STATS, GATE_UNITS, GATE_TIME, LAYER_UPDATES, TRAIN_METRICS, GATE_DERIVED, GATE_SCORES)
# A score or a count is of interest where it was worst; where a training had come to, at its last; all else on average.
_WORST: Final = r"^(anomaly_score|anomalous|nan_count|inf_count|dead_units)$"
_LAST: Final = r"^(step|epoch)$"
_TEXT: Final = r"^model_id$"

_FLUX: Final = """\
// Written by Gatewatch's set-up, which puts it back where it was changed; to do without it make the task inactive.
import "date"

option task = {{name: "{task}", every: 1h, offset: 10m}}

stop = date.truncate(t: now(), unit: 1h)
start = date.sub(d: {look_back}h, from: stop)
points = from(bucketID: "{source}")
    |> range(start: start, stop: stop)
    |> filter(fn: (r) => r._measurement =~ /^({measurements})$/)
hourly = (fn, tables=<-) => tables
    |> aggregateWindow(every: 1h, fn: fn, createEmpty: false, timeSrc: "_start")
    |> to(bucketID: "{target}", orgID: "{org}")

points
    |> filter(fn: (r) => r._field !~ /{worst}/ and r._field !~ /{last}/ and r._field !~ /{text}/)
    |> hourly(fn: mean)
points |> filter(fn: (r) => r._field =~ /{worst}/) |> hourly(fn: max)
points |> filter(fn: (r) => r._field =~ /{last}/) |> hourly(fn: last)
"""


def hourly_task(source: str, target: str, org: str) -> str:
    """Return the Flux of the task. Measurements, tags and fields keep their names, so that a query reads alike in both
    buckets; a point's time is the beginning of its hour.

    Args:
        source, target: ids of the buckets that it reads and writes: hexadecimal, as InfluxDB makes them.
        org: the organisation's id.
    """
    return _FLUX.format(
        task=TASK,
        look_back=LOOK_BACK_HOURS,
        source=source,
        target=target,
        org=org,
        measurements="|".join(_MEASUREMENTS),
        worst=_WORST,
        last=_LAST,
        text=_TEXT,
    )
