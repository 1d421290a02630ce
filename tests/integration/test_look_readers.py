"""Whoever reads the gates of a run reads its windows: beside a reference look they say the same as without one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from gatewatch import open_store
from gatewatch.collector.config import AlertSettings, Settings
from gatewatch.collector.run_progress import Progress
from gatewatch.collector.schema import LOOKED_AT, REFERENCE_LOOK
from gatewatch.jobs import baselines
from gatewatch.jobs.alerts.alert_job import evaluate
from gatewatch.jobs.baselines import Baselines
from gatewatch.jobs.copying.copier import Copier
from gatewatch.jobs.copying.plan import CopyScope
from gatewatch.jobs.loop import is_scored, newest_metrics
from gatewatch.jobs.queries.client import ask
from gatewatch.jobs.queries.named_query import queries
from gatewatch.jobs.report.content import content
from gatewatch.jobs.retry import Retry
from gatewatch.jobs.scoring.captures import series_groups
from gatewatch.jobs.scoring.scoring_pass import run_pass
from grafana.emulator.check import open_dashboard
from grafana.emulator.frames import FluxSource
from grafana.source import dashboards
from tests.passes import assert_same
from tests.recorded import BEGIN, SECOND, end, fill, moment, recorded, shut

COUNT = 60
LONG_AGO = -10_000
WRONG = 7.5
"""A number that no window has."""


@pytest.fixture(scope="module", autouse=True)
def small_forests():
    """For speed: nothing here is about what a forest finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gatewatch.jobs.scoring.detectors.isolation_forest.TREES", 10)
        yield


def second_look(point):
    """What the reference look at the same moment might say: the same each time, and like nothing of the windows."""
    fields = {
        name: value if name in ("step", "epoch") else 3 if isinstance(value, int) else WRONG
        for name, value in point.fields.items()
    }
    return replace(point, tags={**point.tags, **REFERENCE_LOOK}, fields=fields)


def looked_at_twice(captures):
    """A reference look at every tenth capture, which is too seldom for the checks to compare two."""
    for number, points in enumerate(captures):
        looks = [second_look(point) for point in points if point.measurement in LOOKED_AT and number % 10 == 0]
        yield looks + points


def backtest(look=lambda captures: captures, **options):
    return look(recorded(COUNT, phase="backtest", params=(), change=shut(40), **options))


def filled(store, look=lambda captures: captures):
    """The store with a backtest, and a healthy one of long ago that is a baseline; both are scored."""
    fill(store, backtest(look))
    end(store, phase="backtest")
    healthy = recorded(COUNT, run="past", phase="backtest", seed=1, params=(), at=lambda k: moment(k + LONG_AGO))
    fill(store, look(healthy))
    end(store, run="past", phase="backtest")
    run_pass(store, "past")
    baselines.add(store, "past", lambda: BEGIN)
    (done,) = run_pass(store, "r")
    assert done.failed is None
    return store


@pytest.fixture(scope="module", params=["sqlite", "influxdb"])
def both(request, tmp_path_factory):
    """Two stores of a kind: one of windows alone, and one with reference looks."""
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("looks")
        stores = [open_store(f"sqlite:///{folder / name}.db") for name in ("alone", "both")]
    else:
        influxd = request.getfixturevalue("influxd")
        stores = [influxd.store(), influxd.store()]
    return filled(stores[0]), filled(stores[1], looked_at_twice)


def test_the_second_store_has_the_reference_looks(both):
    alone, two = both
    frame = two.read("gate_stats", run="r", tags=REFERENCE_LOOK)
    assert len(frame) == COUNT // 10 * 2
    assert set(frame["mean"]) == {WRONG}
    assert alone.read("gate_stats", tags=REFERENCE_LOOK).empty


@pytest.mark.parametrize("measurement", LOOKED_AT)
def test_reading_counting_and_listing_series(both, measurement):
    alone, two = both
    assert two.read(measurement).equals(alone.read(measurement))
    assert two.count(measurement, "step", run="r") == COUNT * 2
    assert two.tallies(measurement, "step") == alone.tallies(measurement, "step")
    assert two.series(measurement, "step", "r") == alone.series(measurement, "step", "r")
    assert two.newest(measurement).equals(alone.newest(measurement))
    one, other = (store.extremes(measurement, "step", run="r") for store in both)
    assert repr(one) == repr(other)
    assert set(two.newest(measurement, tags=REFERENCE_LOOK)["look"]) == {"reference"}
    assert two.count(measurement, "step", run="r", tags=REFERENCE_LOOK) == COUNT // 10 * 2


def test_scores_and_derived_metrics(both):
    alone, two = both
    assert_same(two, alone)
    assert is_scored(two, "r")
    assert all(done.unchanged for done in run_pass(two))
    assert [group.points for group in series_groups(two, "r")] == [COUNT * 2]
    assert newest_metrics(two, "r") == newest_metrics(alone, "r")


def test_baselines(both):
    asked = "r", "backtest", (("memory", "forget"), ("memory", "input"))
    one, other = (Baselines(store).normal(*asked) for store in both)
    assert np.array_equal(one.rows, other.rows, equal_nan=True)
    assert np.array_equal(*(each.histograms(("memory", "forget"), np.arange(COUNT)) for each in (one, other)))
    assert repr(Baselines(both[0]).run_limit(*asked)) == repr(Baselines(both[1]).run_limit(*asked))


def test_a_resumed_run(both):
    one, other = (Progress.from_store(store, "r", "backtest") for store in both)
    assert one.as_dict() == other.as_dict()
    assert one.step == COUNT - 1


def test_alerts(both, tmp_path):
    now = datetime.fromtimestamp(BEGIN / SECOND + COUNT + 30, UTC)
    settings, read = Settings(alerts=AlertSettings()), []
    for number, store in enumerate(both):
        evaluate(store, settings, tmp_path / str(number), now)
        read.append(store.read("alert_events", run="r").drop(columns="time"))
    assert set(read[0]["rule"]) >= {"forget_gate_shut"}
    assert "gate_not_finite" not in set(read[0]["rule"])  # which the reference looks count
    assert read[1].equals(read[0])


def test_the_report(both):
    now = datetime.fromtimestamp(BEGIN / SECOND, UTC) + timedelta(days=1)
    one, other = (
        content(store, store.runs().set_index("run", drop=False).loc["r"].to_dict(), lambda line: None, now)
        for store in both
    )
    assert one.keys() == other.keys()
    for name in one.keys() - {"made", "store"}:
        assert repr(one[name]) == repr(other[name]), name
    assert len(one["rows"]) >= 2


def test_a_copy_has_both(both, tmp_path):
    copy = open_store(f"sqlite:///{tmp_path / 'copy.db'}")
    assert all(each.agrees for each in Copier(both[1], copy, Retry(10)).run(CopyScope()))
    for tags in ({}, REFERENCE_LOOK):
        assert copy.read("gate_units", tags=tags).equals(both[1].read("gate_units", tags=tags))


def test_passes_along_the_way_give_the_same(tmp_path):
    """A pass each few captures, from its checkpoint, as the service makes them."""
    alone, two = (open_store(f"sqlite:///{tmp_path / name}.db") for name in ("alone", "two"))
    for store, look in ((alone, lambda captures: captures), (two, looked_at_twice)):
        for number, points in enumerate(backtest(look)):
            store.write(points)
            if number % 15 == 0:
                run_pass(store, state=tmp_path / store.path.stem, finish=False)
        end(store, phase="backtest")
        run_pass(store, state=tmp_path / store.path.stem)
    assert_same(two, alone)


@pytest.fixture(scope="module")
def servers(influxd):
    buckets = [influxd.bucket(), influxd.bucket()]
    stores = [influxd.store(bucket) for bucket in buckets]
    filled(stores[0])
    filled(stores[1], looked_at_twice)
    return [
        (store, FluxSource(influxd.url, org=influxd.org, bucket=bucket, token=influxd.token))
        for store, bucket in zip(stores, buckets, strict=True)
    ]


class TestFlux:
    @pytest.mark.parametrize("name", list(queries()))
    def test_named_queries(self, servers, name):
        given = {"run": "r", "other": "past", "layer": "memory", "step": "50", "steps": "7", "phase": "backtest"}
        given |= {"every": "10s", "start": "1980-01-01", "stop": "2200-01-01", "curve": "loss"}
        query, answers = queries()[name], []
        wanted = {parameter.name for parameter in query.parameters}
        for store, _ in servers:
            values = query.values(
                {key: [value] for key, value in given.items() if key in wanted}, store.influxdb.bucket
            )
            rows = ask(store.influxdb, query.text, values, source=name)
            answers.append([{key: row[key] for key in row if key not in ("age", "silent")} for row in rows])
        assert answers[0] == answers[1]
        assert answers[0] or name not in ("gates", "compare", "layer-at-step", "first-anomaly")

    @pytest.mark.parametrize("name", ["gates", "backtest", "learning", "compare", "anomalies", "runs"])
    def test_dashboards(self, servers, name):
        chosen = {"run": "r", "other": "past", "phase": "backtest", "layer": "memory"}
        window, now = (BEGIN - SECOND, BEGIN + (COUNT + 1) * SECOND), BEGIN + 2 * COUNT * SECOND
        one, other = (
            [
                (
                    result.panel,
                    [
                        (frame.labels, {each.name: list(each.values) for each in frame.fields})
                        for frame in result.frames
                    ],
                )
                for result in open_dashboard(
                    dashboards()[f"gatewatch-{name}"], source, now=now, window=window, chosen=chosen
                )
            ]
            for _, source in servers
        )
        assert one == other
        assert sum(len(frames) for _, frames in one) > 5
