"""What every store does alike: one suite, over SQLite and over a real InfluxDB."""

from __future__ import annotations

import json
import math
import multiprocessing
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from gatewatch.collector.errors import ConfigError, WriteRejected
from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import FieldValue, Point, point_problem
from gatewatch.collector.store import reopen_store
from gatewatch.collector.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

    from gatewatch.collector.store import Store

    from ..conftest import Influxd

Opener = Callable[[], "Store"]
NOON = 1_700_000_000_000_000_000


def point(
    time: int = NOON, *, measurement: str = "m", tags: dict[str, str] | None = None, **fields: FieldValue
) -> Point:
    return Point(measurement, {"run": "r"} if tags is None else tags, fields, time)


def times(frame: pd.DataFrame) -> list[int]:
    return frame["time"].astype("int64").tolist()


def test_a_fresh_store_passes_its_check(store: Store) -> None:
    store.check()
    assert store.find("m").empty


def test_an_empty_read_still_has_a_time_column(store: Store) -> None:
    assert list(store.read("gate_stats").columns) == ["time"]
    assert store.read("gate_stats")["time"].dtype == "datetime64[ns, UTC]"
    store.write([point(f=1.0)])
    assert list(store.read("gate_stats", run="r").columns) == ["time"]
    assert list(store.read("m", run="r", stop=NOON).columns) == ["time"]


def test_a_measurement_that_there_is_not_is_named_with_what_is_alike(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"^no measurement 'gate_stat' in \S+; did you mean 'gate_stats'\?$"):
        store.read("gate_stat")
    store.write([point(measurement="fills", f=1.0)])
    with pytest.raises(ConfigError, match=r"; did you mean 'fills'\?$"):
        store.read("fill", run="r")
    with pytest.raises(ConfigError, match=r"^no measurement '\?' in \S+; there are gate_stats, .*, fills$"):
        store.read("?")
    assert store.read("fills", run="r")["f"].tolist() == [1.0]
    assert store.find("gate_stat").empty


def test_a_run_that_there_is_not_is_named_with_what_is_alike(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"^no run 'goog-2' in \S+: it holds no run$"):
        store.read("gate_stats", run="goog-2")
    store.write([point(tags={"run": "goog-1"}, f=1.0), point(tags={}, f=1.0)])
    with pytest.raises(ConfigError, match=r"^no run 'goog-2' in \S+: did you mean 'goog-1'\?$"):
        store.read("gate_stats", run="goog-2")
    with pytest.raises(ConfigError, match=r"^no run 'Goog \\n' in \S+: there is 'goog-1'$|did you mean"):
        store.read("m", run="Goog \n")
    assert list(store.find("m", run="goog-2").columns) == ["time"]


def test_a_run_is_read_by_either_normal_form_of_its_name(store: Store) -> None:
    store.write([point(tags={"run": "caf\u00e9"}, f=1.0)])
    assert store.read("m", run="cafe\u0301")["run"].tolist() == ["caf\u00e9"]


def test_writing_nothing_is_fine(store: Store) -> None:
    store.write([])
    store.write(iter([]))


def test_fields_of_one_point_unite_and_the_last_value_wins(store: Store) -> None:
    store.write([point(a=1.0, b=1.0)])
    store.write([point(b=2.0, c=3.0), point(c=4.0)])
    frame = store.read("m")
    assert len(frame) == 1
    assert frame[["a", "b", "c"]].iloc[0].tolist() == [1.0, 2.0, 4.0]


def test_writing_again_changes_nothing(store: Store) -> None:
    points = [point(NOON + i, tags={"run": "r", "gate": f"g{i % 3}"}, f=i / 7, step=i) for i in range(50)]
    store.write(points)
    before = store.read("m")
    store.write(reversed(points))
    assert_frame_equal(store.read("m"), before)
    assert len(before) == 50


def test_types_come_back_as_they_were(store: Store) -> None:
    store.write([point(f=2.0, i=2, b=True, s="2"), point(NOON + 1, f=3.0, i=3, b=False, s="")])
    frame = store.read("m")
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == {
        "time": "datetime64[ns, UTC]",
        "run": "object",
        "b": "bool",
        "f": "float64",
        "i": "int64",
        "s": "object",
    }
    assert frame[["f", "i", "b", "s"]].values.tolist() == [[2.0, 2, True, "2"], [3.0, 3, False, ""]]


def test_what_a_point_lacks_is_missing_and_types_still_hold(store: Store) -> None:
    store.write([point(f=2.0, i=2**62 + 1, b=True, s="2"), point(NOON + 1, other=1.0)])
    frame = store.read("m")
    assert frame[["b", "f", "i", "other", "s"]].dtypes.astype(str).tolist() == [
        "boolean",
        "float64",
        "Int64",
        "float64",
        "object",
    ]
    assert frame["i"][0] == 2**62 + 1
    assert frame["i"][1] is pd.NA
    assert frame["b"][1] is pd.NA
    assert math.isnan(frame["f"][1])
    assert frame["s"][1] is None


@pytest.mark.parametrize(
    "value", [0.1, 5e-324, 1.7976931348623157e308, 1e16, 1e21, 1e-5, 123456789012345680.0, 1 / 3, 2.0**53 + 2]
)
def test_floats_come_back_to_the_last_bit(store: Store, value: float) -> None:
    store.write([point(f=value)])
    assert struct.pack("<d", store.read("m")["f"][0]) == struct.pack("<d", value)


def test_a_negative_zero_is_a_zero(store: Store) -> None:
    store.write([point(f=-0.0)])  # InfluxDB's answer loses the sign
    assert store.read("m")["f"].tolist() == [0.0]


def test_integers_keep_all_64_bits(store: Store) -> None:
    store.write([point(low=-(2**63), high=2**63 - 1)])
    assert store.read("m")[["low", "high"]].iloc[0].tolist() == [-(2**63), 2**63 - 1]


@pytest.mark.parametrize("time", [-(2**63) + 2, -1, 0, NOON, 2**62, 2**63 - 2])
def test_any_time_in_64_bits_is_kept(store: Store, time: int) -> None:
    store.write([point(time, f=1.0)])
    assert times(store.read("m")) == [time]
    assert times(store.read("m", start=time, stop=time + 1)) == [time]
    assert store.read("m", stop=time).empty
    assert store.read("m", start=time + 1).empty


HOSTILE = [
    "it's",
    'say "hi"',
    "back\\slash",
    "'; DROP TABLE points; --",
    "' OR '1'='1",
    '" OR "a"="a',
    "../../etc/passwd",
    ".*",
    "/.*/",
    "a,b=c d",
    "$v0",
    "%s{}%b",
    "🙂é",
    " padded ",
    "\\'",
    "{'a': 1}",
    "now() - 1h",
    "nan",
    "x" * 512,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_names(store: Store, name: str) -> None:
    tags = {"run": name, name: name}
    store.write(
        [Point(name, tags, {name + "!": 1.5}, NOON) if len(name) < 500 else Point(name, tags, {name: 1.5}, NOON)]
    )
    store.write([Point(name, {"run": "other"}, {"g": 1.0}, NOON)])
    frame = store.read(name, run=name)
    assert len(frame) == 1
    assert frame["run"][0] == name
    assert frame[f"tag:{name}" if len(name) == 512 else name][0] == name  # where the field has the tag's name
    assert frame.iloc[0, -1] == 1.5
    assert len(store.read(name, tags={name: name})) == 1
    assert len(store.read(name)) == 2
    field = frame.columns[-1]
    assert store.count(name, field, run=name, tags={name: name}) == 1
    assert store.tallies(name, field) == {name: (1, NOON)}


@pytest.mark.parametrize("run", ["\udcff", "goog\ud800"])
def test_a_name_that_is_not_utf_8_is_refused_in_one_line_where_it_is_looked_for(store: Store, run: str) -> None:
    store.write([point(a=1.0)])
    for look in (
        lambda: store.read("m", run=run),
        lambda: store.count("m", "a", run=run),
        lambda: store.read(run),
        lambda: store.read("m", tags={"layer": run}),
        lambda: store.read("m", tags={run: "lstm"}),
        lambda: store.series("m", "a", run),
    ):
        with pytest.raises(ConfigError, match="is not UTF-8; see the terminal's encoding") as caught:
            look()
        assert str(caught.value).isprintable()


def test_an_empty_tag_is_no_tag(store: Store) -> None:
    store.write([Point("m", {"run": "r", "symbol": ""}, {"a": 1.0}, NOON), point(b=2.0)])
    frame = store.read("m")
    assert list(frame.columns) == ["time", "run", "a", "b"]
    assert len(frame) == 1


def test_reads_are_filtered_by_run_tags_and_time(store: Store) -> None:
    store.write(
        Point("m", {"run": f"r{i % 2}", "gate": f"g{i % 3}"} | ({"symbol": "X"} if i < 6 else {}), {"n": i}, NOON + i)
        for i in range(12)
    )

    def numbers(**filters: object) -> list[int]:
        return store.read("m", **filters)["n"].tolist()  # type: ignore[arg-type]  # the filters are of several types

    assert numbers() == list(range(12))
    assert numbers(run="r1") == [1, 3, 5, 7, 9, 11]
    assert numbers(tags={"gate": "g2"}) == [2, 5, 8, 11]
    assert numbers(run="r0", tags={"gate": "g2"}) == [2, 8]
    assert numbers(tags={"symbol": ""}) == [6, 7, 8, 9, 10, 11]
    assert numbers(start=NOON + 4, stop=NOON + 7) == [4, 5, 6]
    assert numbers(run="r0", start=NOON + 10) == [10]
    assert store.read("m", tags={"absent": "x"}).empty
    assert store.read("m", start=NOON + 7, stop=NOON + 4).empty


def test_points_that_have_a_field_are_counted_as_they_are_read(store: Store) -> None:
    store.write(
        Point("m", {"run": f"r{i % 2}", "gate": f"g{i % 3}"}, {"n": i} | ({"f": 0.5} if i % 4 else {"s": ""}), NOON + i)
        for i in range(12)
    )
    store.write([point(NOON + 1, measurement="other", n=1), Point("m", {"gate": "g0"}, {"b": False}, NOON)])
    for filters in (
        {},
        {"run": "r1"},
        {"tags": {"gate": "g2"}},
        {"tags": {"run": ""}},
        {"run": "r0", "tags": {"gate": "g0"}},
        {"start": NOON + 4, "stop": NOON + 7},
        {"start": datetime(2024, 5, 1, tzinfo=UTC)},
        {"run": "absent"},
    ):
        frame = store.find("m", **filters)
        for name in ("n", "f", "s", "b", "absent"):
            counted = store.count("m", name, **filters)
            assert counted == (frame[name].notna().sum() if name in frame else 0)
            assert type(counted) is int
    assert store.count("absent", "n") == 0


def test_only_some_fields_are_read_where_that_is_asked(store: Store) -> None:
    for i in range(8):
        fields: dict[str, FieldValue] = {"n": i} if i % 3 else {"f": i / 2, "n": i, "s": "x"}
        store.write([Point("m", {"run": f"r{i % 2}", "gate": f"g{i}"}, fields, NOON + i)])
    store.write([point(NOON + 9, b=True)])
    whole = store.read("m")
    for names in (["f"], ["s", "f"], ["n", "b"], ["n", "n", "absent"], ["b"], [], ["absent"]):
        wanted = [name for name in ("b", "f", "n", "s") if name in names]
        rows = whole[whole[wanted].notna().any(axis=1)].reset_index(drop=True)
        tags = [tag for tag in ("gate", "run") if rows[tag].notna().any()]
        found = store.read("m", fields=names)
        assert found.columns.tolist() == ["time", *tags, *wanted]
        assert (
            found.astype(object)
            .where(found.notna(), None)
            .equals(rows[found.columns].astype(object).where(rows[found.columns].notna(), None))
        )
    assert store.read("m", fields=["n"], run="r1", start=NOON + 3)["n"].tolist() == [3, 5, 7]
    assert str(store.read("m", fields=["n"])["n"].dtype) == "int64"


def test_a_tally_is_kept_of_each_run(store: Store) -> None:
    assert store.tallies("m", "f") == {}
    store.write([point(NOON + i, tags={"run": f"r{i % 2}", "gate": f"g{i % 3}"}, f=1.0) for i in range(7)])
    store.write([point(NOON + 20, tags={"run": "r0", "gate": "g0"}, other=1), point(NOON + 30, tags={"g": "1"}, f=1.0)])
    store.write([point(NOON + 40, tags={"run": "r2"}, other=1), point(NOON - 9, tags={"run": "early"}, f=2.0)])
    told = {"r0": (4, NOON + 6), "r1": (3, NOON + 5), "early": (1, NOON - 9)}
    assert store.tallies("m", "f") == told
    store.write([point(NOON + i, tags={"run": f"r{i % 2}", "gate": f"g{i % 3}"}, f=2.0) for i in range(7)])
    assert store.tallies("m", "f") == told
    store.write([point(NOON + 20, tags={"run": "r0", "gate": "g0"}, f=1.0), point(NOON + 3, f=1.0, tags={"run": "r1"})])
    assert store.tallies("m", "f") == told | {"r0": (5, NOON + 20), "r1": (4, NOON + 5)}
    assert store.tallies("m", "absent") == store.tallies("absent", "f") == {}


def test_the_series_of_a_run_are_tallied(store: Store) -> None:
    assert store.series("m", "f", "r") == []
    odd = {"run": "r", "gate": "a'b,c=\"d", "phase": "train"}
    store.write(
        [point(NOON + i, tags=tags, f=1.0) for i, tags in enumerate((odd, odd, {"run": "r"}, {"run": "other"}))]
    )
    store.write([point(NOON + 9, tags={"run": "r"}, g=1.0)])
    found = sorted((sorted(tags.items()), points, newest) for tags, points, newest in store.series("m", "f", "r"))
    assert found == [(sorted(odd.items()), 2, NOON + 1), ([("run", "r")], 1, NOON + 2)]
    assert store.series("m", "f", "") == []


@pytest.mark.parametrize("value", [1.5, 7, False, ""])
@pytest.mark.parametrize("time", [-(2**63) + 2, 0, 2**63 - 2])
def test_any_field_at_any_time_is_counted(store: Store, value: FieldValue, time: int) -> None:
    store.write([point(time, f=value)])
    assert store.count("m", "f") == 1
    assert store.tallies("m", "f") == {"r": (1, time)}


@pytest.mark.parametrize("name", [",", ":", "}", "{", '"', '":', ',":', "\\\\x", 'a,"f', "%", "_", "é"])
def test_what_looks_like_a_field_is_not_counted(store: Store, name: str) -> None:
    looks = f'x,"{name}":1,"{name}'
    for number, odd in enumerate((looks, f"{name},", f"x{name}", name.upper() + "y", "f")):
        text = {f"s{number}": f"{{{looks},", "t": ",", "u": ":1", ",": ",", ":": "x"}
        store.write(
            [Point("m", {"run": "r"}, {odd: 1.0} | {k: v for k, v in text.items() if k != name}, NOON + number)]
        )
    assert store.count("m", name) == 0
    store.write([Point("m", {"run": "r"}, {name: 1.0}, NOON + 2)])
    assert store.count("m", name) == 1
    assert store.tallies("m", name) == {"r": (1, NOON + 2)}


def test_a_moment_bounds_a_read_in_any_zone(store: Store) -> None:
    start = datetime(2024, 5, 1, 12, tzinfo=UTC)
    first = int(start.timestamp()) * 10**9
    store.write([point(first - 1, f=0.0), point(first, f=1.0), point(first + 1_000, f=2.0)])
    elsewhere = start.astimezone(timezone(timedelta(hours=-5)))
    for moment in (start, elsewhere, start.replace(tzinfo=None), pd.Timestamp(start)):
        assert store.read("m", start=moment)["f"].tolist() == [1.0, 2.0]
        assert store.read("m", stop=moment)["f"].tolist() == [0.0]
    assert store.read("m", start=start + timedelta(microseconds=1))["f"].tolist() == [2.0]
    assert store.read("m", start=pd.Timestamp(first + 999, tz="UTC"))["f"].tolist() == [2.0]


def test_rows_come_by_time_then_by_tags(store: Store) -> None:
    store.write(
        Point("m", tags, {"f": 1.0}, NOON + time)
        for time in (2, 1)
        for tags in ({"b": "2", "a": "1"}, {"a": "2"}, {"a": "1"}, {"b": "1"}, {})
    )
    frame = store.read("m")
    assert list(frame.columns) == ["time", "a", "b", "f"]
    one = [(None, None), (None, "1"), ("1", None), ("1", "2"), ("2", None)]
    assert list(zip(frame["a"], frame["b"], strict=True)) == one * 2
    assert times(frame) == [NOON + 1] * 5 + [NOON + 2] * 5


def test_wrong_points_are_named_and_the_others_stored(store: Store) -> None:
    store.write([point(f=1.0)])
    batch = [
        point(NOON + 1, f=1.0),
        point(NOON + 2, f=math.nan),
        point(NOON + 3, f=7),
        point(NOON + 4, f="seven", g=1.0),
        Point("m", {"run": "bad\n"}, {"f": 1.0}, NOON + 5),
        point(NOON + 6, f=2.0),
    ]
    with pytest.raises(WriteRejected) as caught:
        store.write(batch)
    assert times(store.read("m")) == [NOON, NOON + 1, NOON + 6]
    assert caught.value.count == 4
    reasons = "\n".join(caught.value.reasons)
    assert "'f' is nan" in reasons
    assert "control character" in reasons
    assert "already exists as" in reasons
    assert "\n" not in str(caught.value)
    with pytest.raises(WriteRejected):
        store.write(batch)
    assert times(store.read("m")) == [NOON, NOON + 1, NOON + 6]


def test_a_point_like_one_before_is_looked_at_all_the_same(store: Store) -> None:
    good = [point(NOON, f=1.0, i=1, b=True), point(NOON + 1, measurement="text", s="x"), point(NOON + 2, f=1e300)]
    store.write(good)
    wrong = [
        point(NOON + 3, f=math.inf, i=1, b=True),
        point(NOON + 4, f=math.nan, i=1, b=True),
        point(NOON + 5, f=1.0, i=2**63, b=True),
        point(NOON + 6, f=1.0, i=True, b=True),
        point(NOON + 7, f=1.0, i=1, b=1),
        point(2**63 - 1, f=1.0, i=1, b=True),
        point(-(2**63), f=1.0, i=1, b=True),
        point(NOON + 8, measurement="text", s="\ud800"),
        point(NOON + 9, measurement="text", s="x" * (2**20 + 1)),
        point(NOON + 10, tags={"run": ["r"]}, f=1.0),  # type: ignore[dict-item]  # as a careless caller does
    ]
    for each in wrong:
        with pytest.raises(WriteRejected):
            store.write([each, *good])
    store.write([point(NOON + 11, f=1e300), point(NOON + 12, f=-1e300)])
    assert times(store.read("m")) == [NOON, NOON + 2, NOON + 11, NOON + 12]
    assert len(store.read("text")) == 1


def test_lines_are_written_as_their_points_are(opener: Opener, store: Store) -> None:
    batch = [
        point(NOON + 1, f=1.0, i=2, b=True, s='say "\\"\n m f=1 1'),
        point(NOON + 2, tags={"run": "a b", "l,ayer": "x\\,=y"}, f=-2.5),
        point(NOON + 3, measurement="other one", g=1e-5),
    ]
    store.write_lines(encode(batch))
    store.write_lines(b"")
    written = [store.read(name) for name in ("m", "other one")]
    store.write(batch)
    for before, name in zip(written, ("m", "other one"), strict=True):
        assert_frame_equal(before, store.read(name))
    assert len(written[0]) == 2
    assert written[0]["s"][0] == 'say "\\"\n m f=1 1'


def test_each_refused_line_is_told_with_its_reason_and_the_others_stored(store: Store) -> None:
    store.write([point(f=1.0)])
    good = [point(NOON + i, f=float(i)) for i in range(1, 40)]
    wrong = [point(NOON + 100, f="text\nand more"), point(NOON + 101, f=7, g=1.0), point(NOON + 102, f=True)]
    lines = encode([wrong[0], *good[:20], wrong[1], *good[20:], wrong[2]])
    with pytest.raises(WriteRejected, match="already exists as") as caught:
        store.write_lines(lines)
    assert sorted(line for line, _ in caught.value.lines) == sorted(encode([each])[:-1] for each in wrong)
    assert all(re.search(r"\bf\b.*already exists as", reason) for _, reason in caught.value.lines)
    assert caught.value.count == 3
    assert times(store.read("m")) == [NOON + i for i in range(40)]
    assert list(store.read("m").columns) == ["time", "run", "f"]


def test_what_is_no_line_is_refused_alone(store: Store) -> None:
    with pytest.raises(WriteRejected) as caught:
        store.write_lines(encode([point(NOON, f=1.0)]) + b"m f= 1\nrubbish\n" + encode([point(NOON + 1, f=2.0)]))
    assert {line for line, _ in caught.value.lines} == {b"m f= 1", b"rubbish"}
    assert all("cannot be parsed" in reason for _, reason in caught.value.lines)
    assert caught.value.count == 2
    assert times(store.read("m")) == [NOON, NOON + 1]


def test_points_that_have_a_line_are_refused_with_it(store: Store) -> None:
    store.write([point(f=1.0)])
    with pytest.raises(WriteRejected) as caught:
        store.write([point(NOON + 1, f=math.nan), point(NOON + 2, f="text"), point(NOON + 3, f=1.0)])
    assert [line for line, _ in caught.value.lines] == [encode([point(NOON + 2, f="text")])[:-1]]
    assert caught.value.count == 2


def test_the_last_value_wins_where_others_are_refused(store: Store) -> None:
    store.write([point(f=1.0)])
    batch = [point(NOON + i % 7, f=float(i)) if i % 10 else point(NOON + 50, f="text") for i in range(100)]
    with pytest.raises(WriteRejected):
        store.write(batch)
    last = {each.time: each.fields["f"] for each in batch if isinstance(each.fields["f"], float)}
    assert dict(zip(times(store.read("m")), store.read("m")["f"], strict=True)) == last


def test_many_lines_are_written_at_once(store: Store) -> None:
    batch = [point(NOON + i, n=i, s="a\nb") for i in range(12_001)]
    store.write_lines(encode(batch))
    assert store.read("m")["n"].tolist() == list(range(12_001))


def test_a_store_is_either_a_file_or_in_an_influxdb(store: Store, tmp_path: Path) -> None:
    if isinstance(store, SqliteStore):
        assert (store.path, store.influxdb) == (tmp_path / "points.db", None)
    else:
        assert store.path is None
        assert store.influxdb is not None
        assert store.influxdb.url == store.url
        store.influxdb.ping()


def test_a_store_is_opened_again_by_its_destination(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    store.write([point(f=1.0)])
    destination = json.loads(json.dumps(dict(store.destination)))
    if not isinstance(store, SqliteStore):
        influxd: Influxd = request.getfixturevalue("influxd")
        assert influxd.token not in str(destination)
        for name in ("ORG", "BUCKET"):
            monkeypatch.setenv(f"INFLUXDB_V2_{name}", "another")
        with pytest.raises(ConfigError, match="INFLUXDB_V2_TOKEN is not set"):
            reopen_store(destination)
        monkeypatch.setenv("INFLUXDB_V2_TOKEN", influxd.token)
    monkeypatch.chdir(tmp_path)
    again = reopen_store(destination)
    assert again.destination == store.destination
    assert len(again.read("m")) == 1
    again.close()


@pytest.mark.parametrize("first", [1.0, 1, True, "1"])
@pytest.mark.parametrize("second", [1.0, 1, True, "1"])
def test_a_field_keeps_the_type_it_was_first_written_with(store: Store, first: FieldValue, second: FieldValue) -> None:
    store.write([point(f=first)])
    if type(first) is type(second):
        store.write([point(NOON + 1, f=second)])
        assert len(store.read("m")) == 2
    else:
        with pytest.raises(WriteRejected, match="f"):
            store.write([point(NOON + 1, f=second)])
        assert store.read("m")["f"].tolist() == [first]


def test_the_same_name_may_have_another_type_elsewhere(store: Store) -> None:
    store.write([point(f=1.0), point(measurement="other", f="text")])
    assert store.read("other")["f"].tolist() == ["text"]


def test_more_points_than_one_request_takes(store: Store) -> None:
    store.write(point(NOON + i, f=i / 3, n=i) for i in range(12_001))
    frame = store.read("m")
    assert frame["n"].tolist() == list(range(12_001))
    assert frame["f"].tolist() == [i / 3 for i in range(12_001)]


def event(run: str, time: int, name: str, phase: str = "train", **fields: FieldValue) -> Point:
    return Point("runs", {"run": run, "phase": phase}, {"event": name, **fields}, NOON + time)


RUN_COLUMNS = ["run", "state", "phases", "started", "last_seen", "step", "error", "framework", "model", "config"]


def test_runs_are_told_by_their_first_start_and_last_event(store: Store) -> None:
    about = {"framework": "keras", "model": "lstm", "config": '{"every": 10}'}
    store.write(
        [
            event("old", 1, "started", step=0, **about),
            event("old", 2, "heartbeat", step=10),
            event("old", 3, "completed", step=20),
            event("new", 2, "started", step=0, **about | {"model": "gru"}),
            event("new", 9, "heartbeat", step=7),
            event("headless", 5, "heartbeat"),
            Point("runs", {}, {"event": "started"}, NOON + 99),
        ]
    )
    frame = store.runs()
    assert list(frame.columns) == RUN_COLUMNS
    assert frame["run"].tolist() == ["new", "headless", "old"]
    assert frame["state"].tolist() == ["heartbeat", "heartbeat", "completed"]
    assert frame["model"].tolist() == ["gru", None, "lstm"]
    assert frame["config"].tolist() == ['{"every": 10}', None, '{"every": 10}']
    assert frame["step"].fillna(-1).tolist() == [7, -1, 20]
    assert frame["last_seen"].astype("int64").tolist() == [NOON + 9, NOON + 5, NOON + 3]
    assert frame["started"].isna().tolist() == [False, True, False]
    assert frame["started"][2].value == NOON + 1
    assert frame["phases"].tolist() == ["train"] * 3
    assert frame["error"].tolist() == [None] * 3


def test_a_run_is_told_by_all_of_its_phases(store: Store) -> None:
    store.write(
        [
            event("r", 1, "started", step=0, framework="keras", model="lstm", config="{}"),
            event("r", 3, "started", "backtest", step=5, framework="torch", config="[]"),
            event("r", 7, "heartbeat", step=70),
            event("r", 9, "completed", "backtest", step=6),
            event("r", 2, "heartbeat", "live", step=1),
        ]
    )
    row = store.runs().iloc[0]
    assert row[["run", "state", "phases", "step"]].tolist() == ["r", "heartbeat", "train,backtest,live", 6]
    assert row[["framework", "model", "config"]].tolist() == ["keras", "lstm", "{}"]
    assert (row["started"].value, row["last_seen"].value) == (NOON + 1, NOON + 9)


@pytest.mark.parametrize(
    ("ends", "state", "error"),
    [
        ({"train": "completed", "backtest": "completed"}, "completed", None),
        ({"train": "interrupted", "backtest": "completed"}, "interrupted", None),
        ({"train": "completed", "backtest": "failed", "live": "interrupted"}, "failed", "ValueError: backtest"),
        ({"train": "failed", "backtest": "failed", "live": "completed"}, "failed", "ValueError: backtest"),
        ({"train": "failed", "backtest": "started"}, "started", "ValueError: train"),
        ({"train": "started", "backtest": "heartbeat", "live": "completed"}, "heartbeat", None),
        ({"train": "heartbeat", "backtest": "started", "live": "interrupted"}, "started", None),
    ],
)
def test_the_state_is_that_of_what_goes_on_or_else_the_worst_end(
    store: Store, ends: dict[str, str], state: str, error: str | None
) -> None:
    for time, (phase, end) in enumerate(ends.items(), 10):
        store.write([event("r", time - 10, "started", phase), event("r", time - 5, "failed", phase, error="of before")])
        why = {"error": f"ValueError: {phase}"} if end == "failed" else {}
        store.write([event("r", time, end, phase, **why)])
    assert store.runs()[["state", "error"]].to_numpy().tolist() == [[state, error]]


def test_without_runs_the_frame_is_empty_and_typed(store: Store) -> None:
    frame = store.runs()
    assert frame.empty
    assert str(frame["started"].dtype) == "datetime64[ns, UTC]"
    assert str(frame["step"].dtype) == "Int64"


def test_a_closed_store_may_be_closed_again_and_used_again(store: Store) -> None:
    store.write([point(f=1.0)])
    store.close()
    store.close()
    assert len(store.read("m")) == 1


def _write_many(store: Store, worker: int) -> None:
    for batch in range(10):
        store.write([point(NOON + batch * 20 + i, tags={"w": str(worker)}, f=1.0, i=i) for i in range(20)])
        store.write([point(NOON + batch, tags={"shared": "yes"}, **{f"w{worker}": float(batch)})])


def test_processes_write_at_once_and_nothing_is_lost(opener: Opener) -> None:
    store = opener()
    store.write([point(f=1.0)])  # a connection that the children must not use
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_write_many, args=(store, worker)) for worker in range(3)]
    for child in children:
        child.start()
    _write_many(store, 3)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    for worker in range(4):
        assert len(store.read("m", tags={"w": str(worker)})) == 200
    shared = store.read("m", tags={"shared": "yes"})
    assert shared[[f"w{worker}" for worker in range(4)]].notna().all(axis=None)
    assert len(shared) == 10


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)
values = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.text(max_size=6)
)
points = st.builds(
    Point,
    st.just("m"),
    st.dictionaries(names, names, max_size=3),
    st.dictionaries(names, values, min_size=1, max_size=4),
    st.integers(NOON, NOON + 5),
).filter(lambda candidate: point_problem(candidate) is None)


def write(store: Store, batch: list[Point]) -> int:
    try:
        store.write(batch)
    except WriteRejected as rejected:
        return rejected.count
    return 0


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(st.lists(points, max_size=6), max_size=3))
def test_both_stores_give_the_same_frame(batches: list[list[Point]], pair: Callable[[], tuple[Store, Store]]) -> None:
    sqlite, influxdb = pair()
    for batch in batches:
        for candidate in batch:  # one by one: in one batch the stores may meet conflicting types in another order
            assert write(sqlite, [candidate]) == write(influxdb, [candidate])
    assert_frame_equal(sqlite.find("m"), influxdb.find("m"), check_exact=True)


def test_both_stores_give_the_same_runs(pair: Callable[[], tuple[Store, Store]]) -> None:
    batch = [
        event("a", 1, "started", config="{}", step=0),
        event("b", 2, "failed", step=3, error='KeyError: "x"'),
        event("a", 5, "heartbeat"),
        event("a", 6, "started", "backtest", framework="torch"),
        event("a", 6, "completed", "live"),
        Point("runs", {"run": "c"}, {"event": "interrupted"}, NOON),
    ]
    sqlite, influxdb = pair()
    sqlite.write(batch)
    influxdb.write(batch)
    assert_frame_equal(sqlite.runs(), influxdb.runs(), check_exact=True)
