"""Where the cause of an anomaly lies, wherever anomalies are listed, by scores that say it and by older ones."""

from __future__ import annotations

import json
import time

import pytest

from gatewatch.collector.schema import GATE_SCORES, GATE_STATS, RUNS, Point
from gatewatch.jobs.cli import main
from grafana.emulator.check import open_dashboard
from grafana.emulator.frames import FluxSource
from grafana.source import dashboards
from tests import cookbook
from tests.recorded import SECOND

CAPTURES = 12
RUN_SCORES = {
    "of-network": {("memory", "forget"): {5: ("network", 1.5), 6: ("network", 1.4)}},
    "of-optimizer": {("_optimizer", "kernel"): {4: ("optimizer", 2.0)}, ("memory", "forget"): {7: ("network", 1.2)}},
    "network-then-data": {("_data", "feed"): {3: ("network", 1.3), 6: ("data", 2.0)}},
    "old": {("memory", "forget"): {5: (None, 1.5)}},
    "of-state": {("memory", "hidden"): {8: ("state", 2.0)}},
    "healthy": {("memory", "forget"): {}},
    "raw-feed": {
        ("memory", "forget"): {4: ("network", 6.0)},
        ("memory", "input"): {4: ("network", 7.0)},
        ("_data", "volume"): {5: ("data", 2.0)},
        ("_data", "close"): {4: ("data", 2.0)},
    },
}
"""Run → series → capture → the source and the score of those above 1; all others are 0.2, of the network."""


@pytest.fixture(scope="module")
def now():
    return time.time_ns()


@pytest.fixture(scope="module")
def bucket(influxd, now):
    """A bucket with these runs."""
    points = []
    for run, by_series in RUN_SCORES.items():
        tags = {"run": run, "phase": "train"}
        points.append(Point(RUNS, tags, {"event": "started", "config": "{}", "step": 0}, at(now, 0) - SECOND))
        points.append(Point(RUNS, tags, {"event": "completed", "step": CAPTURES}, now))
        for k in range(CAPTURES):
            gate = {**tags, "layer": "memory", "gate": "forget"}
            points.append(Point(GATE_STATS, gate, {"mean": 0.5, "step": k}, at(now, k)))
            for (layer, gate), high in by_series.items():
                source, score = high.get(k, (None if run == "old" else "network", 0.2))
                fields = {"anomaly_score": score, "step": k, "anomalous": int(score > 1)}
                fields |= {} if source is None else {"source": source}
                named = {**tags, "layer": layer, "gate": gate, "detector": "consensus"}
                points.append(Point(GATE_SCORES, named, fields, at(now, k)))
    name = influxd.bucket()
    influxd.store(name).write(points)
    return name


def at(now, k):
    return now - (CAPTURES - k) * 10 * SECOND


@pytest.fixture
def shown(influxd, bucket, now):
    """Opens a dashboard: the rows of one panel, as dicts."""
    source = FluxSource(influxd.url, org=influxd.org, bucket=bucket, token=influxd.token)

    def shown(board, panel, **chosen):
        window = (now - 600 * SECOND, now + SECOND)
        asked = open_dashboard(dashboards()[f"gatewatch-{board}"], source, now=now, window=window, chosen=chosen)
        rows = []
        for one in asked:
            assert one.problem is None, (one.panel, one.problem)
            for frame in one.frames if one.panel == panel else ():
                columns = {field.name: field.values for field in frame.fields}
                rows += [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return rows

    return shown


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("of-network", {"memory forget": "network"}),
        ("of-optimizer", {"_optimizer kernel": "optimizer", "memory forget": "network"}),
        ("network-then-data", {"_data feed": "network"}),  # that of the first, whose step is shown beside it
        ("old", {"memory forget": "–"}),
        ("healthy", {}),
    ],
)
def test_anomalies_lists_the_source_of_the_first_score_above_1(shown, run, expected):
    rows = shown("anomalies", "What is wrong, and why", run=run)
    assert {row["where"]: row["source"] for row in rows} == expected


def test_what_lies_outside_of_the_network_is_listed_first_in_order_of_time_then_the_worst(shown):
    rows = shown("anomalies", "What is wrong, and why", run="raw-feed")
    assert [row["where"] for row in rows] == ["_data close", "_data volume", "memory input", "memory forget"]


def test_runs_lists_the_source_of_what_was_above_1_first(shown):
    rows = shown("runs", "Runs")
    assert {row["run"]: row["source"] for row in rows if "source" in row} == {
        "raw-feed": "data",
        "of-network": "network",
        "of-optimizer": "optimizer",
        "network-then-data": "network",
        "old": "–",
        "of-state": "state",
        "healthy": "–",
    }


@pytest.mark.parametrize("source", [None, "network"])
def test_runs_of_which_none_was_ever_above_1_are_listed(influxd, now, source):
    tags = {"run": "calm", "phase": "train"}
    scored = {**tags, "layer": "memory", "gate": "forget", "detector": "consensus"}
    fields = {"anomaly_score": 0.2, "step": 1} | ({} if source is None else {"source": source})
    bucket = influxd.bucket()
    influxd.store(bucket).write(
        [
            Point(RUNS, tags, {"event": "completed", "step": 1}, at(now, 2)),
            Point(GATE_STATS, {**tags, "layer": "memory", "gate": "forget"}, {"step": 1}, at(now, 1)),
            Point(GATE_SCORES, scored, fields, at(now, 1)),
        ]
    )
    opened = FluxSource(influxd.url, org=influxd.org, bucket=bucket, token=influxd.token)
    asked = [*open_dashboard(dashboards()["gatewatch-runs"], opened, now=now)]
    assert [one.problem for one in asked if one.problem] == []
    sources = [
        field.values for one in asked for frame in one.frames for field in frame.fields if field.name == "source"
    ]
    assert sources == ([["–"]] if source else [])  # for which the table has the same dash


def test_compare_says_the_source_in_its_sentence(shown):
    def said(run, other):
        (row,) = shown("compare", "What tells them apart", run=run, other=other)
        return row["_value"]

    assert said("of-optimizer", "healthy") == (
        "1 is anomalous from step 4, first _optimizer kernel (optimizer), 2 is not"
    )
    assert said("old", "of-state") == (
        "Both are anomalous: 1 from step 5, first memory forget; 2 from step 8, first memory hidden (state)"
    )


def test_the_queries_list_the_source(influxd, bucket, monkeypatch, capsys):
    for name, value in cookbook.environment(influxd, bucket).items():
        monkeypatch.setenv(name, value)

    def asked(name):
        assert main(["query", name, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    first = {row["run"]: (row["step"], row["source"]) for row in asked("first-anomaly")}
    assert first == {
        "raw-feed": (4, "data"),
        "of-network": (5, "network"),
        "of-optimizer": (4, "optimizer"),
        "network-then-data": (3, "network"),
        "old": (5, ""),
        "of-state": (8, "state"),
    }
    every = [(row["run"], row["step"], row["source"]) for row in asked("anomalies")]
    assert sorted(every, key=str) == sorted(
        [
            *[("of-network", step, "network") for step in (5, 6)],
            *[("of-optimizer", 4, "optimizer"), ("of-optimizer", 7, "network")],
            *[("network-then-data", 3, "network"), ("network-then-data", 6, "data")],
            *[("old", 5, ""), ("of-state", 8, "state")],
            *[("raw-feed", 4, source) for source in ("network", "network", "data")],
            ("raw-feed", 5, "data"),
        ],
        key=str,
    )
