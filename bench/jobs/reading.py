"""Points a second, read into a frame: by influxdb-client, and by Gatewatch from InfluxDB and from SQLite.

    python -m bench.jobs.reading

The same points lie in both stores. influxdb-client gives what its documentation shows: Flux with a pivot, so that each
point is a row, through `query_data_frame`. The first frames are compared, number by number.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from influxdb_client.client.influxdb_client import InfluxDBClient

from bench.rounds import extent, measure, show
from bench.samples import points, shapes
from bench.shipping import TIMEOUT_S, influxd
from gatewatch.collector.store import Store
from gatewatch.collector.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    import pandas as pd

    from tests.conftest import Influxd

POINTS = 200_000
QUICK_POINTS = 5_000
BATCH = 20_000
MEASUREMENT = "read"
_FLUX = (
    'from(bucket: "{bucket}") |> range(start: 0) |> filter(fn: (r) => r._measurement == "{measurement}")'
    ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")'
)


def theirs(server: Influxd, bucket: str) -> pd.DataFrame:
    """The frame of influxdb-client."""
    with InfluxDBClient(server.url, server.token, org=server.org, timeout=int(TIMEOUT_S * 1000)) as client:
        frame: pd.DataFrame = client.query_api().query_data_frame(_FLUX.format(bucket=bucket, measurement=MEASUREMENT))
        return frame


def rate(read: Callable[[], pd.DataFrame], count: int) -> float:
    """Points a second in one call."""
    begin = time.perf_counter()
    size = len(read())
    seconds = time.perf_counter() - begin
    if size != count:
        raise AssertionError(f"{size} of {count} points were read")
    return count / seconds


def compare(ours: pd.DataFrame, other: pd.DataFrame) -> None:
    """See that both hold the same numbers.

    Raises:
        AssertionError: they do not.
    """
    numbers = [name for name in ours.columns if ours[name].dtype.kind in "fi"]
    time = "_time" if "_time" in other else "time"
    other = other.sort_values([time, "layer", "gate"], kind="stable")
    ours = ours.sort_values(["time", "layer", "gate"], kind="stable")
    np.testing.assert_array_equal(ours[numbers].to_numpy(), other[numbers].to_numpy())


def main() -> int:
    """Measure and print."""
    asked = extent(__doc__)
    count = QUICK_POINTS if asked.quick else POINTS
    try:
        with influxd() as (server, folder):
            for number, (shape, fields) in enumerate(shapes(2_000).items()):
                bucket = server.bucket()
                stores: list[Store] = [server.store(bucket), SqliteStore(folder / f"{number}.db")]
                every = points(MEASUREMENT, count, fields)
                other = None
                for store in stores:
                    for begin in range(0, count, BATCH):
                        store.write(every[begin : begin + BATCH])
                    other = theirs(server, bucket) if other is None else other
                    compare(store.read(MEASUREMENT), other)
                variants = {
                    "influxdb-client, query_data_frame with a pivot": partial(theirs, server, bucket),
                    "gatewatch, from InfluxDB": partial(stores[0].read, MEASUREMENT),
                    "gatewatch, from SQLite": partial(stores[1].read, MEASUREMENT),
                }
                found = measure({name: partial(rate, read, count) for name, read in variants.items()}, asked.rounds)
                show(f"Reading {count:,} points into a frame: {shape}", "points/s", found)
    except pytest.skip.Exception as missing:
        print(f"Reading is not measured: {missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
