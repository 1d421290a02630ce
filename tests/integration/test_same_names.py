"""A run whose tags are named like fields, from the monitor to the mail: all is as without these tags."""

from __future__ import annotations

import json
import time
from contextlib import closing
from datetime import UTC, datetime

import pytest
from pandas.testing import assert_frame_equal

from gatewatch import open_store
from gatewatch.collector.config import Settings
from gatewatch.collector.names import check_tags
from gatewatch.collector.schema import (
    ALERT_EVENTS,
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS_FIELDS,
    HISTOGRAM_FIELDS,
    RUNS,
    TRAIN_METRICS,
    Point,
)
from gatewatch.collector.store.columns import TAG
from gatewatch.jobs.alerts.reader import Reader
from gatewatch.jobs.alerts.rules import BUILT_IN
from gatewatch.jobs.alerts.state import State, StateFiles
from gatewatch.jobs.cli import main
from gatewatch.jobs.loop import newest_metrics
from gatewatch.jobs.queries.client import ask
from gatewatch.jobs.queries.named_query import queries
from gatewatch.jobs.queries.output import in_order
from gatewatch.jobs.report.content import content
from gatewatch.jobs.scoring.scoring_pass import run_pass
from grafana.emulator.check import open_dashboard
from grafana.emulator.frames import FluxSource
from grafana.source import dashboards
from grafana.source.rules import grafana_rule
from tests import cookbook, seeded
from tests.grafana_alerts import Evaluator
from tests.integration.test_grafana_rules import BEGUN, CASES, RULES
from tests.recorded import SECOND, end, fill, moment, recorded, shut

TAGS = {
    "loss": "x",
    "drift": "0.5",
    "mean": "x",
    "memory_timescale": "x",
    "step": "7",
    "anomaly_score": "9",
    "why_entropy": "x",
    "e" * 511: "x",
}
EVERY_TAG = TAGS | dict.fromkeys(
    [
        *(name for name in GATE_STATS_FIELDS if name not in HISTOGRAM_FIELDS),
        *("hist_00", "u000", "t000", "config", "event", "error", "model", "framework", "value", "state", "threshold"),
        *("delivered", "val_loss", "price", "equity", "position", "gradient_norm", "update_ratio", "update_norm"),
        *("saturation", "dead_share", "frozen_units", "window_s", "generalisation_gap", "anomalous", "model_id"),
        *("captured", "dropped", "rejected", "score", "worst", "when", "last", "first", "captures", "highest", "gap"),
        *("seen", "from", "to", "section", "part", "moving", "units", "usual", "heard", "due", "inside", "recent"),
        *("worst score", "best loss", "bars", "sign", "size", "feature", "series", "at", "name", "later", "time_"),
        *("tag:loss", "tag:value", "table", "result", "tags", "text", "title", "cause", "before", "peak", "fall"),
    ],
    "x",
)


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """For speed: nothing here is about what a forest finds."""
    monkeypatch.setattr("gatewatch.jobs.scoring.detectors.isolation_forest.TREES", 10)


@pytest.fixture
def stores(tmp_path, monkeypatch):
    """Two stores with the same run of 80 captures that falls shut at the 60th: one has the tags, one has none."""
    monkeypatch.chdir(tmp_path)
    opened = []
    for name, tags in (("tagged", TAGS), ("plain", {})):
        store = open_store(f"sqlite:///{tmp_path / name}.db")
        fill(store, recorded(80, tags=check_tags(tags), change=shut(60)))
        logged = {"val_loss": 1.5, "loss": 1.0, "drift": 0.25, "phase": 3.0, "step": 70}
        store.write([Point(TRAIN_METRICS, {"run": "r", "phase": "train", **tags}, logged, moment(70) + 2000)])
        end(store, tags=tags)
        assert main(["jobs", "--once", "--store", store.url]) == 0
        opened.append(store)
    yield opened
    for store in opened:
        store.close()


def without_tags(frame):
    return frame.drop(columns=[name for name in frame if name.startswith(TAG)])


def test_scores_and_derived_metrics_are_the_same(stores):
    for measurement in (GATE_SCORES, GATE_DERIVED):
        tagged, plain = (store.read(measurement, prefix_tags=True) for store in stores)
        assert set(tagged.columns) - set(plain.columns) == {f"tag:{name}" for name in TAGS}
        assert_frame_equal(without_tags(tagged), plain, check_exact=True)
    assert (plain["memory_timescale"] > 0).any()
    scores = stores[0].read(GATE_SCORES, tags={"detector": "consensus", "gate": "forget"})
    assert scores["anomaly_score"].max() > 1
    assert set(scores["tag:anomaly_score"]) == {"9"}


def test_a_second_pass_finds_nothing_new(stores, capsys):
    capsys.readouterr()
    assert main(["jobs", "--once", "--json", "--store", stores[0].url]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["derived"], said["scored"]) == (0, 0)


def test_the_report_says_the_same(stores, capsys):
    said = []
    for store in stores:
        about = store.runs().to_dict("records")[0]
        said.append(content(store, about, lambda line: None, datetime(2026, 1, 1, tzinfo=UTC)))
        assert main(["report", "--store", store.url]) == 0
    tagged, plain = said
    for name in ("rows", "findings", "phases", "ending", "unjudged", "left_out"):
        assert repr(tagged[name]) == repr(plain[name]), name  # NaN is not equal to itself
    assert tagged["rows"]
    assert tagged["facts"].pop("Tags") == ", ".join(f"{name}={value}" for name, value in sorted(TAGS.items()))
    assert tagged["facts"] == plain["facts"]


def test_the_newest_metrics_are_fields(stores):
    tagged, plain = (newest_metrics(store, "r") for store in stores)
    assert tagged == plain
    assert tagged["anomaly_score"] > 1


def test_alerts_are_the_same_but_for_their_tags(stores, tmp_path):
    found = []
    for store, name in zip(stores, ("tagged", "plain"), strict=True):
        now = moment(80)
        memory = StateFiles(tmp_path / name)
        observed = Reader(store, BUILT_IN, Settings(), memory, State(), now).read()
        assert observed.failed == {}
        found.append(
            sorted(
                (alert.rule.name, alert.tags.get("layer", ""), alert.tags.get("gate", ""), alert.firing.value)
                for alert in observed.alerts
            )
        )
        if name == "tagged":
            assert {alert.tags["mean"] for alert in observed.alerts if "gate" in alert.tags} == {"x"}
    assert found[0] == found[1]
    assert "anomaly" in {rule for rule, *_ in found[0]}


def test_a_copy_arrives_whole_and_is_verified(stores, influxd, monkeypatch, capsys):
    monkeypatch.setenv("INFLUXDB_V2_ORG", influxd.org)
    monkeypatch.setenv("INFLUXDB_V2_BUCKET", influxd.bucket())
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", influxd.token)
    source, _ = stores
    capsys.readouterr()
    for more in ([], ["--verify"]):
        assert main(["copy", "--from", source.url, "--to", influxd.url, *more]) == 0
    with closing(open_store(influxd.url)) as destination:
        for measurement in (GATE_SCORES, GATE_DERIVED, RUNS, TRAIN_METRICS):
            assert_frame_equal(destination.read(measurement), source.read(measurement), check_exact=True)
        assert_frame_equal(destination.runs(), source.runs())
        # What the jobs find there they have written already.
        assert main(["jobs", "--once", "--store", influxd.url]) == 0
        assert_frame_equal(destination.read(GATE_SCORES), source.read(GATE_SCORES), check_exact=True)


def test_scores_are_the_same_in_influxdb(influxd, tmp_path):
    bucket = influxd.bucket()
    with closing(influxd.store(bucket)) as store:
        fill(store, recorded(80, tags=TAGS, change=shut(60)))
        assert [done.failed for done in run_pass(store)] == [None]
        frame = store.read(GATE_SCORES, prefix_tags=True)
    with closing(open_store(f"sqlite:///{tmp_path}/plain.db")) as store:
        fill(store, recorded(80, change=shut(60)))
        run_pass(store)
        assert_frame_equal(without_tags(frame), store.read(GATE_SCORES, prefix_tags=True), check_exact=True)


@pytest.fixture(scope="module")
def buckets(influxd, tmp_path_factory):
    """Two buckets with the runs of the cookbook; in one of them every point of a run has all those tags too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gatewatch.jobs.scoring.detectors.isolation_forest.TREES", 10)
        with closing(open_store(f"sqlite:///{tmp_path_factory.mktemp('seeded') / 'points.db'}")) as store:
            cookbook.seed(store)
            with closing(store.history()) as history:
                points = [
                    point
                    for measurement in history.measurements()
                    for run in history.runs(measurement)
                    for part in history.points(measurement, run)
                    for point in part
                ]
    plain, tagged = influxd.bucket(), influxd.bucket()
    for bucket, tags in ((plain, {}), (tagged, EVERY_TAG)):
        with closing(influxd.store(bucket)) as store:
            store.write(
                Point(
                    each.measurement, {**tags, **each.tags} if "run" in each.tags else each.tags, each.fields, each.time
                )
                for each in points
            )
    return plain, tagged


GIVEN = {
    "run": [cookbook.SICK],
    "other": [seeded.HEALTHY],
    "layer": ["encoder"],
    "step": ["30"],
    "tag": ["symbol"],
    "curve": ["price"],
    "start": ["1970-01-01"],
    "stop": ["2030-01-01"],
    "phase": ["train"],
    "runs": None,
}


@pytest.mark.parametrize("name", queries())
@pytest.mark.parametrize("run", [cookbook.SICK, seeded.COLLAPSED, seeded.BACKTEST])
def test_every_query_answers_the_same(name, run, buckets, influxd):
    query = queries()[name]
    given = {each.name: GIVEN[each.name] for each in query.parameters if GIVEN.get(each.name)}
    if "run" in given:
        given["run"] = [run]
    if "phase" in given and run == seeded.BACKTEST:
        given["phase"] = ["backtest"]
    answers = []
    for bucket in buckets:
        with closing(influxd.store(bucket)) as store:
            rows = in_order(ask(store.influxdb, query.text, query.values(given, bucket), source=name), query.columns)
            answers.append(sorted(repr(list(row.values())) for row in rows))
    assert answers[0] == answers[1]


def test_the_queries_about_single_runs_do_answer(buckets, influxd):
    query = queries()["layer-at-step"]
    given = {"run": [cookbook.SICK], "layer": ["encoder"], "step": ["30"]}
    with closing(influxd.store(buckets[1])) as store:
        rows = [*ask(store.influxdb, query.text, query.values(given, buckets[1]), source=query.name)]
    means = [row["mean"] for row in rows]
    assert len(means) == 2
    assert all(isinstance(mean, float) for mean in means)


def shown(asked):
    """What a query gave, without the user's tags, as what can be compared: InfluxDB gives columns in any order."""
    return sorted(
        repr(sorted((field.name, field.kind, [*field.values]) for field in frame.fields if field.name not in UNSHOWN))
        for frame in asked.frames
    )


UNSHOWN = {*EVERY_TAG, *(f"{TAG}{name}" for name in EVERY_TAG)}


@pytest.mark.parametrize("name", dashboards())
def test_every_dashboard_shows_the_same(name, buckets, influxd):
    now = cookbook.NOW
    opened = []
    for bucket in buckets:
        source = FluxSource(influxd.url, org=influxd.org, bucket=bucket, token=influxd.token)
        window = (now - 2 * 86_400 * SECOND, now)
        opened.append([*open_dashboard(dashboards()[name], source, now=now, window=window, chosen={"tag": "symbol"})])
    for plain, tagged in zip(*opened, strict=True):
        assert (tagged.panel, tagged.problem) == (plain.panel, None), tagged.problem
        if plain.panel != "tag":
            assert tagged.rows == plain.rows, tagged.panel
            assert shown(tagged) == shown(plain) or ago(plain), tagged.panel


def ago(asked):
    """Whether a query says how long ago something was, which goes on from one question to the next."""
    return "now()" in asked.flux


def test_the_tables_of_runs_show_metrics_and_tags_of_their_names(buckets, influxd):
    source = FluxSource(influxd.url, org=influxd.org, bucket=buckets[1], token=influxd.token)
    window = (cookbook.NOW - 2 * 86_400 * SECOND, cookbook.NOW)
    columns: dict[str, dict[str, str]] = {"Runs": {}, "More about each run": {}}
    for one in open_dashboard(dashboards()["gatewatch-runs"], source, now=cookbook.NOW, window=window):
        for frame in one.frames if one.panel in columns else ():
            columns[one.panel] |= {field.name: field.kind for field in frame.fields}
    metrics, tags = columns.values()
    assert metrics["loss"] == "number"
    assert "symbol" not in metrics
    assert tags["best loss"] == "number"
    assert (tags["symbol"], tags["loss"]) == ("string", "string")  # the tag: no metric has this name here


@pytest.mark.parametrize("name", CASES)
def test_every_rule_of_grafana_fires(name, influxd):
    bucket, case = influxd.bucket(), CASES[name]
    source = FluxSource(influxd.url, org=influxd.org, bucket=bucket, token=influxd.token)
    with closing(influxd.store(bucket)) as store:
        for value, first, last in ((case.usual, 0, 20), (case.fires, 20, 26)):
            points = [one for s in range(first * 60 + 10, last * 60, 30) for one in case.make(value, s)]
            store.write(Point(each.measurement, {**EVERY_TAG, **each.tags}, each.fields, each.time) for each in points)
    rule = Evaluator(grafana_rule(RULES[name], lambda uid, title: 1), source)
    assert rule.until(BEGUN + 600, BEGUN + 1200) == set()
    assert len(rule.until(BEGUN + 1260, BEGUN + 1560)) == 1


def test_alert_events_are_shown_beside_tags_of_their_fields_names(influxd):
    bucket, now = influxd.bucket(), time.time_ns()
    with closing(influxd.store(bucket)) as store:
        tags = {**EVERY_TAG, "rule": "anomaly", "run": "r", "phase": "train"}
        store.write([Point(ALERT_EVENTS, tags, {"state": "firing", "value": 2.5, "threshold": 1.0}, now - SECOND)])
        query = queries()["alerts"]
        (row,) = in_order(ask(store.influxdb, query.text, query.values({}, bucket), source="alerts"), query.columns)
    assert (row["state"], row["value"], row["threshold"]) == ("firing", 2.5, 1.0)
