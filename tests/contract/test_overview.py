"""What gives an overview of many runs without reading them, alike in every store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gatewatch.collector.schema import Point

if TYPE_CHECKING:
    from gatewatch.collector.store import Store

NOON = 1_700_000_000_000_000_000


def score(time: int, value: float, gate: str = "forget", run: str = "r", **fields: float) -> Point:
    return Point("gate_scores", {"run": run, "gate": gate}, {"anomaly_score": value, **fields}, NOON + time)


def test_the_newest_point_of_each_series_is_read(store: Store) -> None:
    assert list(store.newest("gate_scores").columns) == ["time"]
    store.write([score(i, float(i), gate, run) for i in range(5) for gate in ("forget", "input") for run in "rs"])
    store.write([score(9, 9.0, "input", step=3.0), Point("other", {"run": "r"}, {"f": 1.0}, NOON + 99)])
    frame = store.newest("gate_scores", run="r")
    assert frame[["gate", "anomaly_score", "step"]].fillna(-1).to_numpy().tolist() == [
        ["forget", 4.0, -1],
        ["input", 9.0, 3.0],
    ]
    assert len(store.newest("gate_scores")) == 4
    assert store.newest("gate_scores", tags={"gate": "input"}, prefix_tags=True)["anomaly_score"].tolist() == [4.0, 9.0]
    assert store.newest("absent").empty
    assert store.newest("gate_scores", run="absent").empty


def test_a_single_spike_among_many_points_is_an_extreme(store: Store) -> None:
    store.write([score(i * 1000, 0.5) for i in range(2000)])
    store.write([score(1_234_000, 17.0), score(700_000, -3.0), score(1_500_000, 99.0, run="other")])
    width, frame = store.extremes("gate_scores", "anomaly_score", run="r", buckets=20)
    assert 19 <= len(frame) <= 21
    assert (frame["high"].max(), frame["low"].min()) == (17.0, -3.0)
    spike = frame[frame["high"] == 17.0]["time"].astype("int64").iloc[0]
    assert spike <= NOON + 1_234_000 < spike + width
    assert spike % width == 0
    assert sorted(set(frame["low"])) == [-3.0, 0.5]


def test_the_extremes_are_those_of_each_series_with_these_tags(store: Store) -> None:
    store.write([score(i, float(i), gate) for i in range(4) for gate in ("forget", "input")])
    store.write([Point("gate_scores", {"run": "r", "gate": "cell"}, {"step": 7}, NOON)])
    _, frame = store.extremes("gate_scores", "anomaly_score", run="r", buckets=1)
    assert frame.groupby("gate")["high"].max().to_dict() == {"forget": 3.0, "input": 3.0}
    assert set(store.extremes("gate_scores", "anomaly_score", run="r", tags={"gate": "input"})[1]["gate"]) == {"input"}
    assert store.extremes("gate_scores", "step", run="r")[1]["high"].tolist() == [7.0]
    for field, run in (("absent", "r"), ("anomaly_score", "absent")):
        assert store.extremes("gate_scores", field, run=run)[1].empty
    assert list(store.extremes("absent", "f", run="r")[1].columns) == ["time"]


def test_the_extremes_of_what_is_new_go_on_with_the_same_spans(store: Store) -> None:
    store.write([score(i * 1000, float(i % 7)) for i in range(500)])
    width, before = store.extremes("gate_scores", "anomaly_score", run="r", buckets=10)
    store.write([score(i * 1000, float(i % 7)) for i in range(500, 700)])
    start = before["time"].iloc[-1]
    same_width, after = store.extremes("gate_scores", "anomaly_score", run="r", start=start, width=width)
    _, whole = store.extremes("gate_scores", "anomaly_score", run="r", width=width)
    assert same_width == width
    assert after["time"].iloc[0] == start
    assert whole["time"].tolist() == [*before["time"][:-1], *after["time"]]
    assert whole["high"].tolist() == [*before["high"][:-1], *after["high"]]


def test_text_has_no_extremes(store: Store) -> None:
    store.write([Point("runs", {"run": "r"}, {"event": "started"}, NOON)])
    assert store.extremes("runs", "event", run="r")[1].empty


@pytest.mark.parametrize("name", ["loss", "train/loss", 'a "b"', "back\\slash", "$.x", "é", "a'b", "%"])
@pytest.mark.parametrize("start", [NOON, -(10**18), 0])
def test_extremes_have_any_name_and_lie_at_any_time(store: Store, name: str, start: int) -> None:
    store.write([Point("train_metrics", {"run": "r"}, {name: float(i)}, start + i * 7) for i in range(100)])
    width, frame = store.extremes("train_metrics", name, run="r", buckets=10)
    times = frame["time"].astype("int64")
    assert (frame["low"].min(), frame["high"].max()) == (0.0, 99.0)
    assert times.iloc[0] <= start
    assert times.iloc[-1] <= start + 99 * 7 < times.iloc[-1] + width
    assert 10 <= len(frame) <= 11


def test_a_revision_changes_when_points_of_the_run_are_written(store: Store) -> None:
    assert store.revisions() == {}
    store.write([Point("runs", {"run": run}, {"event": "started"}, NOON) for run in ("r", "s")])
    first = store.revisions()
    assert set(first) == {"r", "s"}
    assert store.revisions() == first
    store.write([score(1, 0.5)])
    second = store.revisions()
    assert second["s"] == first["s"]
    assert second["r"] != first["r"]
    assert store.revisions("r") == {"r": second["r"]}
    store.write([Point("train_metrics", {"run": "r"}, {"loss": 1.0, "step": 1}, NOON)])
    assert store.revisions("r") != {"r": second["r"]}
    assert store.revisions("absent") == {}


def test_points_between_two_moments_are_summarised_by_series(store: Store) -> None:
    gates = ("forget", "input")
    store.write([score(i, float(i), gate, low=-float(i), text="t") for i in range(10) for gate in gates])
    store.write([score(i, 50.0, "forget", run="other") for i in range(10)])
    wanted = {"anomaly_score": "max", "low": "min", "text": "max", "absent": "mean"}
    edges = [NOON, NOON + 4, NOON + 20, NOON + 99]
    frame = store.summaries("gate_scores", wanted, edges, run="r")
    assert sorted(frame.columns) == ["anomaly_score", "gate", "low", "points", "run", "time"]
    assert frame.drop(columns=["time", "run"]).sort_values(["gate", "anomaly_score"])[
        ["gate", "points", "anomaly_score", "low"]
    ].to_numpy().tolist() == [
        ["forget", 4, 3.0, -3.0],
        ["forget", 6, 9.0, -9.0],
        ["input", 4, 3.0, -3.0],
        ["input", 6, 9.0, -9.0],
    ]
    assert (frame["time"].astype("int64") - NOON).tolist() == [0, 0, 4, 4]
    one = store.summaries("gate_scores", {"anomaly_score": "mean"}, edges[:2], run="r", tags={"gate": "input"})
    assert one["anomaly_score"].tolist() == [1.5]


def test_nothing_is_summarised_where_there_is_nothing(store: Store) -> None:
    store.write([score(0, 1.0), Point("gate_scores", {"run": "r", "gate": "cell"}, {"step": 7}, NOON)])
    for fields, run in (({"absent": "max"}, "r"), ({"anomaly_score": "max"}, "absent"), ({}, "r")):
        assert store.summaries("gate_scores", fields, [NOON, NOON + 1], run=run).empty
    assert store.summaries("gate_scores", {"step": "max"}, [NOON], run="r").empty
    assert store.summaries("gate_scores", {"step": "max"}, [NOON, NOON + 1], run="r")["gate"].tolist() == ["cell"]


def test_only_points_with_a_value_of_at_least_so_much_are_found(store: Store) -> None:
    store.write([score(i, i / 2, step=i) for i in range(5)])
    store.write([Point("gate_scores", {"run": "r", "gate": "forget"}, {"step": 7}, NOON + 9)])
    assert store.find("gate_scores", run="r", at_least=("anomaly_score", 1.0))["anomaly_score"].tolist() == [1, 1.5, 2]
    assert store.find("gate_scores", run="r", at_least=("step", 4), fields=["step"])["step"].tolist() == [4, 7]
    assert store.find("gate_scores", run="r", at_least=("anomaly_score", 9.0)).empty
    assert store.find("gate_scores", run="r", at_least=("absent", 0.0)).empty
