"""All that a store holds, read as points: one suite, over SQLite and over a real InfluxDB."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.collector.store.sqlite.store import SqliteStore

from .test_store import NOON, point, points

if TYPE_CHECKING:
    from pathlib import Path

    from gatewatch.collector.store import Store

    from ..conftest import Influxd

HOSTILE = ["run", "a b", "l,ayer=", 'quo"te', "back\\slash", "${x}", "$v0", "'; DROP", "🧠"]


def everything(store: Store) -> list[Point]:
    """All points by `History`, in a fixed order."""
    with closing(store.history()) as history:
        found = [
            each
            for name in history.measurements()
            for run in history.runs(name)
            for part in history.points(name, run)
            for each in part
        ]
    return sorted(found, key=lambda each: (each.measurement, sorted(each.tags.items()), each.time))


def exact(batch: list[Point]) -> bytes:
    """What the points are, to the byte: types and all digits."""
    return b"".join(sorted(encode(batch).splitlines(keepends=True)))


def test_an_empty_store_has_no_history(store: Store, tmp_path: Path) -> None:
    assert everything(store) == []
    with closing(store.history()) as history:
        assert history.measurements() == []
        assert list(history.points("m", "r")) == []
        assert history.counts("m", "r") == {}
    assert list(tmp_path.glob("*.db")) == []


def test_every_point_comes_back_with_its_types(store: Store) -> None:
    batch = [
        point(f=1.0, i=2, b=True, s='say "\\"\n m f=1 1'),
        point(NOON + 1, f=-0.0, i=2**63 - 1, b=False, s=""),
        point(NOON - 1, f=1e300, i=-(2**63), s="🧠" * 100),
        point(NOON + 1, tags={}, u000=0.1, u001=-5e-324),
        point(1, tags={"run": "r", "phase": "live", "symbol": "GOOG"}, f=3.0),
        point(-(10**15), measurement="jobs_health", tags={"job": "score"}, lag_s=1.0, rows=7),
        point(time.time_ns() + 10**17, measurement="jobs_health", tags={"job": "score"}, lag_s=2.0),
        point(2**63 - 2, measurement="far", f=1.0),
        point(-(2**63) + 2, measurement="far", f=1.0),
    ]
    store.write(batch)
    assert exact(everything(store)) == exact(batch)


def test_the_runs_of_any_measurement_and_the_types_of_fields(store: Store) -> None:
    store.write([point(f=1.0), point(measurement="n", tags={"run": "q"}, i=1, b=True, s="x"), point(i=2)])
    with closing(store.history()) as history:
        assert set(history.runs()) - {""} == {"q", "r"}
        assert set(history.runs("n")) - {""} == {"q"}
        assert (history.types("n"), history.types("m")) == ({"i": int, "b": bool, "s": str}, {"f": float, "i": int})
        assert history.types("nothing") == {}


def test_runs_come_by_name_and_those_without_one_last(store: Store) -> None:
    store.write([point(tags={"run": run}, f=1.0) for run in HOSTILE])
    store.write([point(tags={"job": "a"}, f=1.0), point(measurement="other", tags={"run": "only here"}, f=1.0)])
    with closing(store.history()) as history:
        assert sorted(history.measurements()) == ["m", "other"]
        assert sorted(history.runs("m")[:-1]) == sorted(HOSTILE)
        assert history.runs("m")[-1] == ""
        assert "only here" in history.runs("other")
        for run in HOSTILE:
            assert [[each.tags["run"] for each in part] for part in history.points("m", run)] == [[run]]
        assert [dict(each.tags) for part in history.points("m", "") for each in part] == [{"job": "a"}]


def test_a_list_is_of_one_series_and_a_series_ordered_by_time(store: Store) -> None:
    batch = [
        point(NOON + (i * 7) % 2_500, tags={"run": "r", "gate": gate}, f=float(i))
        for i in range(2_500)
        for gate in "ab"
    ]
    store.write(batch)
    with closing(store.history()) as history:
        parts = list(history.points("m", "r"))
    assert all(len({each.tags["gate"] for each in part}) == 1 for part in parts)
    assert max(map(len, parts)) <= 1_000
    assert [each.tags["gate"] for part in parts for each in part] == ["a"] * 2_500 + ["b"] * 2_500
    moments = [each.time for part in parts for each in part]
    assert moments == 2 * [NOON + i for i in range(2_500)]


def test_a_series_is_told_from_those_that_have_more_tags(store: Store) -> None:
    tags: list[dict[str, str]] = [{"run": "r"}, {"run": "r", "a": "1"}, {"run": "r", "a": "1", "b": "2"}]
    store.write([point(tags=each, f=1.0, n=i) for i, each in enumerate(tags)])
    with closing(store.history()) as history:
        for i, each in enumerate(tags):
            (part,) = history.points("m", "r", series=each)
            assert [(dict(p.tags), p.fields["n"]) for p in part] == [(each, i)]
            assert history.counts("m", "r", series=each) == {tuple(sorted(each.items())): {"f": 1, "n": 1}}
        assert list(history.points("m", "r", series={"run": "r", "b": "2"})) == []
        assert history.counts("m", "r", series={"run": "r", "b": "2"}) == {}


def test_times_bound_what_is_read_and_counted(store: Store) -> None:
    store.write([point(NOON + i, f=float(i)) for i in range(5)])
    with closing(store.history()) as history:
        read = [each.time - NOON for part in history.points("m", "r", start=NOON + 1, stop=NOON + 4) for each in part]
        assert read == [1, 2, 3]
        assert list(history.counts("m", "r", start=NOON + 1, stop=NOON + 4).values()) == [{"f": 3}]
        assert list(history.counts("m", "r", start=NOON + 3).values()) == [{"f": 2}]
        assert history.counts("m", "r", start=NOON + 5) == {}


def test_values_are_counted_by_series_and_field(store: Store) -> None:
    store.write(
        [
            point(NOON + i, tags={"run": "r", "gate": "a"}, f=float(i), **({"s": "x"} if i % 3 else {}))
            for i in range(2_100)
        ]
    )
    store.write([point(NOON + i, tags={"run": "r", "gate": "b"}, b=True, i=i) for i in range(10)])
    store.write([point(tags={"run": "other"}, f=1.0), point(tags={"gate": "a"}, f=1.0)])
    with closing(store.history()) as history:
        assert history.counts("m", "r") == {
            (("gate", "a"), ("run", "r")): {"f": 2_100, "s": 1_400},
            (("gate", "b"), ("run", "r")): {"b": 10, "i": 10},
        }
        assert history.counts("m", "") == {(("gate", "a"),): {"f": 1}}
        assert history.counts("unknown", "r") == {}


def test_a_field_may_be_called_as_a_tag(store: Store) -> None:
    batch = [point(tags={"run": "r", "gate": "a"}, gate=1.0, run="text", count=2)]
    store.write(batch)
    assert exact(everything(store)) == exact(batch)
    with closing(store.history()) as history:
        assert history.counts("m", "r") == {(("gate", "a"), ("run", "r")): {"gate": 1, "run": 1, "count": 1}}


def test_a_closed_history_may_be_closed_again(store: Store) -> None:
    store.write([point(f=1.0)])
    history = store.history()
    assert history.measurements() == ["m"]
    history.close()
    history.close()


def test_of_a_file_it_stays_what_it_was(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    store.write([point(f=1.0)])
    with closing(store.history()) as history:
        assert history.measurements() == ["m"]
        store.write([point(NOON + 1, f=2.0), point(measurement="new", f=1.0)])
        assert [len(part) for part in history.points("m", "r")] == [1]
        assert history.measurements() == ["m"]
        assert list(history.counts("m", "r").values()) == [{"f": 1}]
    assert len(everything(store)) == 3


def test_large_texts_come_few_at_a_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "points.db")
    store.write([point(NOON + i, s="x" * 2**20) for i in range(20)])
    with closing(store.history()) as history:
        sizes = [len(part) for part in history.points("m", "r")]
    assert sum(sizes) == 20
    assert max(sizes) <= 5


def test_what_is_no_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "points.db").write_bytes(b"no database at all" * 100)
    with (
        closing(SqliteStore(tmp_path / "points.db").history()) as history,
        pytest.raises(ConfigError, match="not a sound"),
    ):
        history.measurements()


def test_a_server_that_is_away_or_does_not_allow_it_says_so(influxd: Influxd) -> None:
    blind = influxd.store(token=influxd.token_for("write"))
    with closing(blind.history()) as history, pytest.raises(ConfigError, match="cannot be read"):
        history.measurements()
    away = open_store("http://127.0.0.1:9", org="o", bucket="b", token="t")
    with closing(away.history()) as history, pytest.raises(WriteUnavailable, match="no connection"):
        history.measurements()


def test_a_field_of_several_types_is_read_and_counted_whole(influxd: Influxd) -> None:
    store = influxd.store()
    month = 30 * 86_400 * 10**9  # a shard holds a week
    for number, value in enumerate((1.5, 2, True, "text")):
        store.write([point(NOON + number * month, f=value, n=number)])
    with closing(store.history()) as history:
        read = [each.fields["f"] for part in history.points("m", "r") for each in part]
        assert [(type(value), value) for value in read] == [(float, 1.5), (float, 2.0), (bool, True), (str, "text")]
        assert history.counts("m", "r") == {(("run", "r"),): {"f": 4, "n": 4}}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(batch=st.lists(points, max_size=12))
def test_both_stores_hold_the_same_bytes(batch: list[Point], pair: Callable[[], tuple[Store, Store]]) -> None:
    sqlite, influxdb = pair()
    kept: dict[str, type] = {}
    for each in batch:  # a field keeps the type that it was first written with
        if all(kept.setdefault(name, type(value)) is type(value) for name, value in each.fields.items()):
            for store in (sqlite, influxdb):
                store.write([each])
    held = everything(sqlite)
    assert exact(everything(influxdb)) == exact(held)
    for store in (sqlite, influxdb):
        with closing(store.history()) as history:
            counted = {
                (series, name): number
                for run in history.runs("m")
                for series, fields in history.counts("m", run).items()
                for name, number in fields.items()
            }
        assert counted == Counter((tuple(sorted(p.tags.items())), name) for p in held for name in p.fields)
