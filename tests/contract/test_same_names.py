"""Tags that are named like fields: one suite, over SQLite and over a real InfluxDB."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from gatewatch.collector.line_protocol import encode
from gatewatch.collector.names import OWN_TAGS
from gatewatch.collector.schema import GATE_STATS_FIELDS, LAYER_UPDATES_FIELDS, Point
from gatewatch.collector.store.columns import field_columns, tag_columns

if TYPE_CHECKING:
    from gatewatch.collector.store import Store

NOON = 1_700_000_000_000_000_000
LONG = "x" * 511
FIELDS = sorted(
    {
        *GATE_STATS_FIELDS,
        *LAYER_UPDATES_FIELDS,
        *("u000", "t000", "loss", "val_loss", "event", "config", "error", "drift", "memory_timescale", "window_s"),
        *("anomaly_score", "anomalous", "model_id", "why_entropy", "value", "threshold", "state", "captured"),
    }
)


def row(store: Store, **options: object) -> dict[str, object]:
    """The one row of `m`, by column, without its time."""
    (found,) = store.read("m", **options).to_dict("records")  # type: ignore[arg-type]
    assert found.pop("time").value == NOON
    return {str(name): value for name, value in found.items()}


def test_the_field_keeps_its_name(store: Store) -> None:
    store.write([Point("m", {"run": "r", "loss": "a", "symbol": "GOOG"}, {"loss": 1.5, "mean": 0.5}, NOON)])
    assert row(store) == {"run": "r", "tag:loss": "a", "symbol": "GOOG", "loss": 1.5, "mean": 0.5}


def test_a_tag_keeps_its_name_where_no_point_has_such_a_field(store: Store) -> None:
    store.write([Point("m", {"run": "r", "loss": "a"}, {"mean": 0.5}, NOON)])
    store.write([Point("m", {"run": "other"}, {"loss": 1.5}, NOON)])
    assert row(store, run="r") == {"run": "r", "loss": "a", "mean": 0.5}


def test_gatewatchs_own_tags_keep_theirs(store: Store) -> None:
    store.write([Point("m", {"run": "r", "phase": "train"}, {"phase": 2.0, "gate": 3.0}, NOON)])
    assert row(store) == {"run": "r", "phase": "train", "field:phase": 2.0, "gate": 3.0}


def test_a_prefix_is_repeated_where_it_must_be(store: Store) -> None:
    tags = {"loss": "a", "tag:loss": "b", "run": "r"}
    store.write([Point("m", tags, {"loss": 1.0, "tag:tag:loss": 2.0, "run": 3.0, "field:run": 4.0}, NOON)])
    assert row(store) == {
        "run": "r",
        "tag:loss": "b",
        "tag:tag:tag:loss": "a",
        "loss": 1.0,
        "tag:tag:loss": 2.0,
        "field:run": 4.0,
        "field:field:run": 3.0,
    }


def test_the_longest_names_are_kept_apart(store: Store) -> None:
    tags = {LONG: "a", f"{LONG}x": "b", f"{LONG}_": "c"}
    store.write([Point("m", tags, {LONG: 1.0, f"{LONG}x": 2.0, f"{LONG}_": 3.0}, NOON)])
    assert row(store) == {
        LONG: 1.0,
        f"{LONG}x": 2.0,
        f"{LONG}_": 3.0,
        f"tag:{LONG}": "a",
        f"tag:{LONG}x": "b",
        f"tag:{LONG}_": "c",
    }


def test_a_program_tells_columns_by_their_names_alone(store: Store) -> None:
    tags = {"run": "r", "loss": "a", "drift": "b", "field:x": "c"}
    store.write([Point("m", tags, {"loss": 1.0, "run": 2.0, "tag:x": 3.0, "field:x": 4.0}, NOON)])
    frame = store.read("m", prefix_tags=True)
    assert frame.drop(columns="time").iloc[0].to_dict() == {
        "tag:drift": "b",
        "tag:field:x": "c",
        "tag:loss": "a",
        "run": "r",
        "field:field:x": 4.0,
        "loss": 1.0,
        "field:run": 2.0,
        "field:tag:x": 3.0,
    }
    assert tag_columns(frame.columns) == {
        "tag:drift": "drift",
        "tag:field:x": "field:x",
        "tag:loss": "loss",
        "run": "run",
    }
    assert field_columns(frame.columns) == {
        "field:field:x": "field:x",
        "loss": "loss",
        "field:run": "run",
        "field:tag:x": "tag:x",
    }


def test_tags_and_fields_are_asked_for_apart(store: Store) -> None:
    store.write(
        [
            Point("m", {"run": "r", "loss": "a"}, {"loss": 1.0, "text": "a"}, NOON),
            Point("m", {"run": "r", "loss": "b", "text": "a"}, {"loss": 2.0}, NOON),
            Point("m", {"run": "r"}, {"loss": 3.0, "text": "a"}, NOON + 1),
        ]
    )
    assert store.read("m", tags={"loss": "b"})["loss"].tolist() == [2.0]
    assert store.read("m", tags={"loss": ""})["loss"].tolist() == [3.0]
    assert store.read("m", tags={"text": "a"})["loss"].tolist() == [2.0]
    assert store.read("m", fields=["text"], tags={"loss": "a"})["text"].tolist() == ["a"]
    assert store.count("m", "loss") == 3
    assert store.count("m", "text") == 2
    assert store.count("m", "loss", tags={"text": ""}) == 2
    assert store.tallies("m", "text") == {"r": (2, NOON + 1)}
    found = sorted((sorted(each.tags.items()), each.points, each.newest) for each in store.series("m", "text", "r"))
    assert found == [([("loss", "a"), ("run", "r")], 1, NOON), ([("run", "r")], 1, NOON + 1)]


def test_a_history_holds_both(store: Store) -> None:
    points = [
        Point("m", {"run": "r", "loss": "a", LONG: "t"}, {"loss": 1.0, LONG: 2, "run": "text"}, NOON),
        Point("m", {"run": "r", "loss": "b"}, {"loss": 2.0}, NOON),
        Point("m", {"run": "r"}, {"loss": 3.0}, NOON),
    ]
    store.write(points)
    with closing(store.history()) as history:
        assert history.runs("m") == ["r", ""] or history.runs("m") == ["r"]
        found = [each for part in history.points("m", "r") for each in part]
        assert sorted(encode([each]) for each in found) == sorted(encode([each]) for each in points)
        only = {"run": "r", "loss": "b"}
        assert [each.fields for part in history.points("m", "r", series=only) for each in part] == [{"loss": 2.0}]
        ((tags, counted),) = history.counts("m", "r", series={"run": "r"}).items()
        assert (dict(tags), dict(counted)) == ({"run": "r"}, {"loss": 1})


def test_runs_are_told_by_their_fields(store: Store) -> None:
    tags = {
        "run": "r",
        "phase": "train",
        **dict.fromkeys(("event", "step", "error", "framework", "model", "config"), "started"),
    }
    store.write(
        [
            Point("runs", tags, {"event": "started", "step": 0, "run": 1.0, "phase": 2.0}, NOON),
            Point("runs", tags, {"event": "completed", "step": 7}, NOON + 1),
        ]
    )
    (found,) = store.runs().to_dict("records")
    assert (found["run"], found["phases"], found["state"], found["step"]) == ("r", "train", "completed", 7)
    assert (found["started"].value, found["last_seen"].value) == (NOON, NOON + 1)
    assert [found[name] for name in ("error", "framework", "model", "config")] == [None] * 4


any_name = st.sampled_from([*FIELDS, LONG]) | st.sampled_from(FIELDS).map("tag:".__add__)
tags_given = st.dictionaries(any_name | st.sampled_from(sorted(OWN_TAGS)), st.sampled_from(["a", "b"]), max_size=4)
fields_given = st.dictionaries(any_name | st.sampled_from(sorted(OWN_TAGS)), st.floats(-9, 9), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(given_points=st.lists(st.tuples(tags_given, fields_given), min_size=1, max_size=4))
def test_any_tag_may_be_named_like_any_field(
    given_points: list[tuple[dict[str, str], dict[str, float]]], pair: Callable[[], tuple[Store, Store]]
) -> None:
    points = [Point("m", tags, fields, NOON + i) for i, (tags, fields) in enumerate(given_points)]
    sqlite, influxdb = pair()
    for store in (sqlite, influxdb):
        store.write(points)
        frame = store.read("m", prefix_tags=True)
        for names, kept in (
            (tag_columns(frame.columns), [point.tags for point in points]),
            (field_columns(frame.columns), [point.fields for point in points]),
        ):
            assert sorted(names.values()) == sorted({name for each in kept for name in each})
            for column, name in names.items():
                assert frame[column].astype(object).where(frame[column].notna(), None).tolist() == [
                    each.get(name) for each in kept
                ]
    assert_frame_equal(sqlite.read("m"), influxdb.read("m"), check_exact=True)
    assert_frame_equal(sqlite.read("m", prefix_tags=True), influxdb.read("m", prefix_tags=True), check_exact=True)


@pytest.mark.parametrize("prefix_tags", [False, True])
def test_no_points_have_no_columns_but_the_time(store: Store, prefix_tags: bool) -> None:
    assert list(store.find("m", prefix_tags=prefix_tags).columns) == ["time"]
