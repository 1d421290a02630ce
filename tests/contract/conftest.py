"""The stores that every test here is run on: SQLite, and a real InfluxDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from gatewatch.collector.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

    from gatewatch.collector.store import Store
    from gatewatch.collector.store.influxdb.store import InfluxStore

    from ..conftest import Influxd

Opener = Callable[[], "Store"]


@pytest.fixture(params=["sqlite", "influxdb"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Gives stores that all open the same empty place."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "points.db")
    influxd: Influxd = request.getfixturevalue("influxd")
    bucket = influxd.bucket()
    return lambda: influxd.store(bucket)


@pytest.fixture
def store(opener: Opener) -> Iterator[Store]:
    store = opener()
    yield store
    store.close()


@pytest.fixture(scope="module")
def pair(influxd: Influxd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], tuple[Store, Store]]]:
    """Gives fresh empty pairs of stores, one of each kind."""
    folder = tmp_path_factory.mktemp("pairs")
    opened: list[Store] = []

    def fresh() -> tuple[SqliteStore, InfluxStore]:
        both = (SqliteStore(folder / f"{len(opened)}.db"), influxd.store())
        opened.extend(both)
        return both

    yield fresh
    for store in opened:
        store.close()
