"""Points a second into a real InfluxDB: as lines that are encoded already, through the spool, by influxdb-client.

    python -m bench.shipping

The first is what the store takes: lines posted in batches of 5,000, one after the other. What follows has points, ready
made: Gatewatch's shipper encodes them, appends them to the spool on disk, reads them there and posts them; then
influxdb-client's synchronous and its batching mode. All of them take the time until the last point is in. Each turn
writes a measurement of its own.
"""

from __future__ import annotations

import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS, WriteOptions

from bench.rounds import extent, measure, show
from bench.samples import Fields, as_theirs, points, shapes
from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import Point
from gatewatch.collector.spool.queue import BATCH_POINTS, Spool
from gatewatch.collector.spool.shipper import Shipper
from tests.conftest import Influxd, run_influxd

SECONDS = 5.0
"""What a turn takes at the rate of lines that are encoded already."""
TIMEOUT_S = 600.0
SPOOL_BYTES = 2**32

Record = TypeVar("Record")


class Rates:
    """What each way of writing reaches, in points a second.

    Args:
        server: where they go.
        folder: for the spools.
    """

    def __init__(self, server: Influxd, folder: Path) -> None:
        self._bucket = server.bucket()
        self._server = server
        self._store = server.store(self._bucket)
        self._folder = folder
        self._numbers = itertools.count()

    def all(self) -> dict[str, Callable[[Fields, int], float]]:
        """By name."""
        return {
            "lines that are encoded already": self.encoded,
            "points, through Gatewatch's spool": self.shipped,
            "influxdb-client, synchronous": self.synchronous,
            "influxdb-client, batching": self.batching,
        }

    def encoded(self, fields: Fields, count: int) -> float:
        """Lines posted, a batch after the other."""
        batches = [encode(batch) for batch in _batches(self._fresh(fields, count))]
        begin = time.perf_counter()
        for batch in batches:
            self._store.write_lines(batch)
        return count / (time.perf_counter() - begin)

    def shipped(self, fields: Fields, count: int) -> float:
        """Points put into the shipper."""
        batches = _batches(self._fresh(fields, count))
        spool = Spool(self._folder / f"spool-{next(self._numbers)}", self._store.destination, SPOOL_BYTES)
        shipper = Shipper(self._store, spool)
        begin = time.perf_counter()
        for batch in batches:
            shipper.put(batch)
        shipper.flush(TIMEOUT_S)
        rate = count / (time.perf_counter() - begin)
        if shipper.delivery.shipped != count:
            raise AssertionError(f"{shipper.delivery.shipped} of {count} points were shipped")
        shipper.close(TIMEOUT_S)
        return rate

    def synchronous(self, fields: Fields, count: int) -> float:
        """Points of influxdb-client written by it, a batch after the other."""
        batches = _batches(as_theirs(self._fresh(fields, count)))
        with self._client() as client, client.write_api(write_options=SYNCHRONOUS) as api:
            begin = time.perf_counter()
            for batch in batches:
                api.write(self._bucket, record=batch)
            return count / (time.perf_counter() - begin)

    def batching(self, fields: Fields, count: int) -> float:
        """Points of influxdb-client handed to the thread of its own that it has."""
        batches = _batches(as_theirs(self._fresh(fields, count)))
        failures: list[Exception] = []
        with self._client() as client:
            begin = time.perf_counter()
            options = WriteOptions(batch_size=BATCH_POINTS, max_close_wait=int(TIMEOUT_S * 1000))
            with client.write_api(options, error_callback=lambda *about: failures.append(about[-1])) as api:
                for batch in batches:
                    api.write(self._bucket, record=batch)
            rate = count / (time.perf_counter() - begin)
        if failures:
            raise failures[0]
        return rate

    def _fresh(self, fields: Fields, count: int) -> list[Point]:
        return points(f"turn_{next(self._numbers):06d}", count, fields)

    def _client(self) -> InfluxDBClient:
        return InfluxDBClient(self._server.url, self._server.token, org=self._server.org, timeout=int(TIMEOUT_S * 1000))


def _batches(records: list[Record]) -> list[list[Record]]:
    return [records[i : i + BATCH_POINTS] for i in range(0, len(records), BATCH_POINTS)]


@contextmanager
def influxd() -> Iterator[tuple[Influxd, Path]]:
    """An InfluxDB of this measurement's own, and a folder."""
    with tempfile.TemporaryDirectory() as folder, contextmanager(run_influxd)(Path(folder)) as server:
        yield server, Path(folder)


def main() -> int:
    """Measure and print."""
    asked = extent(__doc__)
    try:
        with influxd() as (server, folder):
            rates = Rates(server, folder)
            for shape, fields in shapes(BATCH_POINTS).items():
                batches = 1 if asked.quick else _worth(SECONDS, rates, fields)
                variants = {name: partial(rate, fields, batches * BATCH_POINTS) for name, rate in rates.all().items()}
                title = f"Shipping {batches * BATCH_POINTS:,} points to InfluxDB: {shape}"
                show(title, "points/s", measure(variants, asked.rounds))
    except pytest.skip.Exception as missing:
        print(f"Shipping is not measured: {missing}")
    return 0


def _worth(seconds: float, rates: Rates, fields: Fields) -> int:
    """Batches that take about so long."""
    rates.encoded(fields, BATCH_POINTS)  # the first is slower
    return max(2, math.ceil(seconds * rates.encoded(fields, 4 * BATCH_POINTS) / BATCH_POINTS))


if __name__ == "__main__":
    sys.exit(main())
