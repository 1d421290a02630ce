"""Windows scored a second in one pass, by the number of series: in SQLite and in a real InfluxDB.

    python -m bench.jobs.scoring

A window is a capture of a layer's gate that gets its scores, with the captures before it that they are taken over. All
runs are new to the pass and have 64 captures of 5 GRU layers: it reads them all, and the first 32 captures of each are
its warm-up and get none. Where the cost is linear in the series, the ratios are near 1. Between two turns what the pass
has written is deleted. Two rounds are made at the most: the largest size takes minutes.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.jobs.captures import SERIES, fill
from bench.rounds import Place, extent, measure, place, show
from bench.shipping import TIMEOUT_S, influxd
from gatewatch.collector.runtime.native_threads import single_threaded_blas
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES
from gatewatch.collector.store import Store
from gatewatch.collector.store.sqlite.store import SqliteStore
from gatewatch.jobs.scoring.scoring_pass import run_pass

if TYPE_CHECKING:
    from tests.conftest import Influxd

SIZES = (100, 1_000, 10_000)
QUICK_SIZES = (SERIES, 2 * SERIES)
CAPTURES = 64
MOST_ROUNDS = 2
WRITTEN = (GATE_SCORES, GATE_DERIVED)

Forget = Callable[[], None]
"""Deletes what a pass has written."""


def rate(store: Store, forget: Forget) -> float:
    """Windows scored a second in a pass over runs that are new to it."""
    forget()
    with single_threaded_blas():
        begin = time.perf_counter()
        failed = [done.failed for done in run_pass(store) if done.failed]
        seconds = time.perf_counter() - begin
    if failed:
        raise AssertionError(failed[0])
    return windows(store) / seconds


def windows(store: Store) -> int:
    """How many windows have scores: those of the forest, which scores gates alone."""
    return store.count(GATE_SCORES, "anomaly_score", tags={"detector": "isolation_forest"})


def in_sqlite(folder: Path, series: int) -> tuple[Store, Forget]:
    """A store with captures in it."""
    store = SqliteStore(folder / f"{series}.db")
    fill(store, series, CAPTURES)
    return store, partial(_delete_from_file, store)


def in_influxdb(server: Influxd, series: int) -> tuple[Store, Forget]:
    """A store with captures in it."""
    bucket = server.bucket()
    store = server.store(bucket, timeout=TIMEOUT_S)
    fill(store, series, CAPTURES)
    return store, partial(_delete_from_bucket, server, bucket)


def _delete_from_file(store: SqliteStore) -> None:
    store.close()
    connection = sqlite3.connect(store.path)
    with connection:
        chosen = "(SELECT id FROM series WHERE measurement IN (?, ?))"
        connection.execute(f"DELETE FROM points WHERE series_id IN {chosen}", WRITTEN)
    connection.close()


def _delete_from_bucket(server: Influxd, bucket: str) -> None:
    address = f"{server.url}/api/v2/delete?{urllib.parse.urlencode({'org': server.org, 'bucket': bucket})}"
    for measurement in WRITTEN:
        body = {"start": "1970-01-01T00:00:00Z", "stop": "2100-01-01T00:00:00Z"}
        body["predicate"] = f'_measurement="{measurement}"'
        request = urllib.request.Request(address, json.dumps(body).encode(), {"Authorization": f"Token {server.token}"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            pass


@contextmanager
def kinds(here: Place) -> Iterator[dict[str, Callable[[int], tuple[Store, Forget]]]]:
    """By name, what makes stores of so many series."""
    folder = here.fresh()
    folder.mkdir()
    found: dict[str, Callable[[int], tuple[Store, Forget]]] = {"SQLite": partial(in_sqlite, folder)}
    try:
        with influxd() as (server, _):
            os.environ["INFLUXDB_V2_TOKEN"] = server.token  # for processes that open the store by its destination
            yield found | {"InfluxDB": partial(in_influxdb, server)}
    except pytest.skip.Exception as missing:
        print(f"InfluxDB is left out: {missing}")
        yield found


def main() -> int:
    """Measure and print."""
    asked = extent(__doc__)
    with place() as here, kinds(here) as found:
        for name, filled in found.items():
            variants = {
                f"{size:,} series": partial(rate, *filled(size)) for size in (QUICK_SIZES if asked.quick else SIZES)
            }
            show(f"Windows scored in one pass, {name}", "windows/s", measure(variants, min(asked.rounds, MOST_ROUNDS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
