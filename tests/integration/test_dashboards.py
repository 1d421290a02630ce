"""Every query of every dashboard against a real InfluxDB, filled in as Grafana does, and the frames that come."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import pytest
from influxdb_client.client.influxdb_client import InfluxDBClient

from gatewatch.collector.cells import GRU, LSTM
from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import GATE_SCORES, GATE_STATS, RUNS, Point
from gatewatch.jobs.findings.run_state import current_state
from grafana.emulator.check import ANNOTATIONS, VARIABLES, QueryResult, check, open_dashboard, panels
from grafana.emulator.frames import MAX_SERIES, FluxError, FluxSource
from grafana.source import dashboards
from grafana.source.compare_queries import POINTS
from grafana.source.runs import MOST_RUNS
from grafana.source.variables import TITLES
from tests import seeded
from tests.recorded import SECOND

HOUR = 3600 * SECOND
EMPTY_IS_HEALTHY = {
    "Reward",  # of Learning
    "Policy",
    "How far the policy moves",
    "",  # what is repeated for each metric that a run logs besides losses and rewards
    "Values that are not finite",
    "What is wrong, and why",
    "First anomalous",
    "It changed first",
    "Causes",
    "Alerts of this run",
}
"""What shows nothing where all is well, or nothing of the kind is there."""


@pytest.fixture(scope="module")
def boards():
    return dashboards()


@pytest.fixture(scope="module")
def now():
    return time.time_ns()


def source_of(influxd, bucket, token=None):
    return FluxSource(influxd.url, org=influxd.org, bucket=bucket, token=token or influxd.token)


@pytest.fixture(scope="module")
def source(influxd, now):
    """A bucket with the seeded runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gatewatch.jobs.scoring.detectors.isolation_forest.TREES", 10)
        bucket = influxd.bucket()
        seeded.seed(influxd.store(bucket), now)
    return source_of(influxd, bucket)


@pytest.fixture(scope="module")
def empty(influxd):
    """A bucket in which no measurement ever was."""
    return source_of(influxd, influxd.bucket())


@pytest.fixture(scope="module")
def opened(boards, source, now):
    """Opens a dashboard, an hour wide: what was asked, by panel."""
    known: dict[str, dict[str, list[QueryResult]]] = {}

    def opened(name, window=None, **chosen):
        key = repr((name, window, sorted(chosen.items())))
        if key not in known:
            asked = open_dashboard(
                boards[f"gatewatch-{name}"], source, now=now, window=window or (now - HOUR, now), chosen=chosen
            )
            found = known[key] = {}
            for one in asked:
                assert one.problem is None, (one.panel, one.problem, one.flux)
                found.setdefault(one.panel, []).append(one)
        return known[key]

    return opened


def options(asked):
    (variable,) = asked
    return [value for frame in variable.frames for value in frame.fields[-1].values]


def scored(influxd, now, layers, scores, run="r"):
    """A bucket with one run that trained and was tested a day of the market long ago, and these scores of it.

    Another run has layers of the same names, the first of which is its worst.
    """
    begin = {"train": now - HOUR, "backtest": now - 400 * 24 * HOUR}
    points = []
    for phase, since in begin.items():
        tags = {"run": run, "phase": phase}
        points.append(Point(RUNS, tags, {"event": "started", "step": 0}, now - HOUR))
        points.append(Point("train_metrics", tags, {"price": 1.0, "step": 0}, since))
        points += [Point(GATE_STATS, {**tags, "layer": x, "gate": "forget"}, {"mean": 0.5}, since) for x in layers]
    points.append(Point(RUNS, {"run": "other", "phase": "train"}, {"event": "started", "step": 0}, now - 2 * HOUR))
    given = [(run, *score) for score in scores] + [
        ("other", phase, layers[0], "forget", "consensus", 9.0) for phase in begin if scores
    ]
    for name, phase, layer, gate, detector, score in given:
        tags = {"run": name, "phase": phase, "layer": layer, "gate": gate, "detector": detector}
        points += [
            Point(GATE_SCORES, tags, {"anomaly_score": score, "why_level": 99.0}, begin[phase]),
            Point(GATE_SCORES, tags, {"anomaly_score": 0.0, "why_level": 99.0}, begin[phase] + SECOND),
        ]
    bucket = influxd.bucket()
    influxd.store(bucket).write(points)
    return source_of(influxd, bucket)


def pause(now):
    """A run that lives, was silent for three of its four hours, and became anomalous before."""
    tags = {"run": "r", "phase": "train"}
    gate = {**tags, "layer": "l", "gate": "forget"}
    points = [
        Point(RUNS, tags, {"event": "started", "step": 0}, now - 4 * HOUR),
        Point(RUNS, tags, {"event": "heartbeat", "step": 2}, now),
    ]
    for step, (ago, score) in enumerate([(4 * HOUR, 0.2), (3 * HOUR + 600 * SECOND, 2.0), (SECOND, 2.0)]):
        scored = {"anomaly_score": score, "step": step}
        points += [
            Point(GATE_STATS, gate, {"mean": 0.5, "step": step}, now - ago),
            Point(GATE_SCORES, {**gate, "detector": "consensus"}, scored, now - ago),
        ]
    return points


def layers_of(board, source, now, window=None, run="r", **chosen):
    """What the variable `layer` offers; no query of the dashboard fails."""
    found = [*open_dashboard(board, source, now=now, window=window, chosen={"run": run, **chosen})]
    assert [(one.panel, one.problem) for one in found if one.problem] == []
    return options(one for one in found if (one.panel, one.kind) == ("layer", "variable"))


def values(asked):
    return [value for one in asked for frame in one.frames for field in frame.numbers for value in field.values]


def rows_of(asked):
    """The table that Grafana's merge makes of tables: rows by run and phase."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for one in asked:
        for frame in one.frames:
            columns = {field.name: field.values for field in frame.fields}
            for i, key in enumerate(zip(columns["run"], columns["phase"], strict=True)):
                rows.setdefault(key, {}).update({name: column[i] for name, column in columns.items()})
    return rows


@pytest.fixture(scope="module")
def all_asked(boards, source, now):
    """All panels, opened for a run that has everything."""
    found = []
    for board in boards.values():
        backtest = board["uid"] == "gatewatch-backtest"
        begin = seeded.market_begin(now)
        window = (begin - seeded.DAY, begin + 125 * seeded.DAY) if backtest else (now - HOUR, now)
        run = seeded.BACKTEST if backtest else seeded.COLLAPSED
        found += [*open_dashboard(board, source, now=now, window=window, chosen={"run": run, "other": seeded.HEALTHY})]
    return found


class TestEveryQuery:
    """What holds of all panels."""

    def test_none_fails(self, all_asked):
        assert [(one.dashboard, one.panel, one.problem) for one in all_asked if one.problem] == []

    def test_none_is_empty_where_there_is_something(self, all_asked):
        unmarked = ("Backtest", "annotation")  # runs and alerts have the clock's time
        expected = [
            one
            for one in all_asked
            if one.panel not in EMPTY_IS_HEALTHY and one.kind != "variable" and (one.dashboard, one.kind) != unmarked
        ]
        assert [(one.dashboard, one.panel) for one in expected if not one.rows] == []
        assert len(expected) > 60

    def test_every_number_is_finite(self, all_asked):
        for one in all_asked:
            found = [value for value in values([one]) if value is not None]
            assert all(map(math.isfinite, found)), (one.dashboard, one.panel)

    def test_a_series_has_each_time_once_and_in_order(self, all_asked):
        for one in all_asked:
            if one.kind in ("timeseries", "heatmap", "state-timeline"):
                for frame in one.frames:
                    times = frame.field("Time").values
                    assert times == sorted(set(times)), (one.dashboard, one.panel, frame.labels)

    def test_the_rows_of_a_heatmap_come_in_the_order_of_their_names(self, all_asked):
        maps = [one for one in all_asked if one.kind == "heatmap"]
        assert len(maps) > 15
        for one in maps:
            names = [frame.numbers[0].name for frame in one.frames]
            assert len(names) >= 12
            assert names == sorted(names), one.panel

    def test_the_cells_of_a_heatmap_have_no_gaps(self, all_asked):
        for one in all_asked:
            if one.kind == "heatmap":
                times = one.frames[0].field("Time").values[1:-1]  # windows at the ends are cut off
                apart = {b - a for a, b in pairwise(times)}
                assert len(apart) == 1, (one.panel, apart)

    def test_a_heatmap_holds_what_was_there_before_a_weekend_and_ends_with_the_last_capture(self, boards, influxd, now):
        bucket, day = influxd.bucket(), 24 * HOUR
        tags = {"run": "r", "phase": "backtest", "layer": "l", "gate": "forget"}
        monday = now // (7 * day) * 7 * day - 60 * 7 * day
        bars = [monday + (7 * week + weekday) * day for week in range(2) for weekday in range(5)]
        captured = [
            point
            for number, at in enumerate(bars)
            for point in (
                Point("gate_stats", tags, {"mean": 0.5, "step": number}, at),
                Point("gate_units", tags, {"u000": number / 10, "step": number}, at),
            )
        ]
        started = Point(RUNS, {"run": "r", "phase": "backtest"}, {"event": "started", "step": 0}, now - SECOND)
        influxd.store(bucket).write([started, *captured])
        window = (monday - day, monday + 30 * day)
        asked = open_dashboard(boards["gatewatch-backtest"], source_of(influxd, bucket), now=now, window=window)
        (frame,) = next(one for one in asked if one.panel == "What each unit keeps").frames
        times, shown = frame.field("Time").values, frame.numbers[0].values
        before_monday = [
            value for at, value in zip(times, shown, strict=True) if bars[4] + day < at <= bars[5] - HOUR * 12
        ]
        assert len(before_monday) >= 8
        assert set(before_monday) == {0.4}
        assert bars[-1] <= times[-1] < bars[-1] + day
        assert shown[-1] == 0.9

    def test_a_panel_of_one_number_has_one(self, all_asked):
        for one in all_asked:
            if one.kind == "stat" and one.frames:
                assert [len(frame) for frame in one.frames] == [1], (one.dashboard, one.panel)

    def test_no_panel_has_more_series_than_grafana_shows(self, all_asked):
        assert max(len(one.frames) for one in all_asked) < MAX_SERIES / 10


class TestEmpty:
    @pytest.mark.parametrize(
        "name", ["runs", "gates", "learning", "feed", "anomalies", "compare", "backtest", "health"]
    )
    def test_a_bucket_in_which_nothing_ever_was(self, boards, empty, now, name):
        asked = [*open_dashboard(boards[f"gatewatch-{name}"], empty, now=now)]
        assert [one.problem for one in asked if one.problem] == []
        assert [one.panel for one in asked if one.rows] == (["tag"] if name == "runs" else [])  # its first is "any"

    @pytest.mark.parametrize(
        "name", ["runs", "gates", "learning", "feed", "anomalies", "compare", "backtest", "health"]
    )
    def test_a_time_in_which_nothing_was(self, opened, now, name):
        long_ago = (now - 10_000 * HOUR * 24, now - 9_999 * HOUR * 24)
        whatever = {"Compare": True, "Choose a backtest": True}
        for panel, asked in opened(name, long_ago).items():
            if asked[0].kind in ("timeseries", "heatmap", "annotation") and panel not in whatever:
                assert sum(one.rows for one in asked) == 0, panel

    def test_a_run_without_scores_or_updates(self, boards, influxd, now):
        """As of a store that the jobs have not looked at."""
        bucket = influxd.bucket()
        store = influxd.store(bucket)
        store.write([Point(RUNS, {"run": "r", "phase": "train"}, {"event": "started", "step": 0}, now - SECOND)])
        for board in boards.values():
            found = [one for one in open_dashboard(board, source_of(influxd, bucket), now=now) if one.problem]
            assert found == []

    def test_what_is_no_flux_is_told(self, source):
        with pytest.raises(FluxError, match="compilation failed"):
            source.ask("from(bucket:")


class TestSource:
    QUERY = 'from(bucket: "{}") |> range(start: -1h) |> limit(n: 1)'

    def test_a_token_that_may_not_read(self, influxd, source):
        writer = source_of(influxd, source.bucket, influxd.token_for("write"))
        with pytest.raises(ConfigError, match=f"bucket '{source.bucket}' cannot be read: .*INFLUXDB_V2_TOKEN"):
            writer.ask(self.QUERY.format(source.bucket))

    def test_a_token_that_nobody_knows(self, influxd, source):
        with pytest.raises(ConfigError, match="unauthorized"):
            source_of(influxd, source.bucket, "wrong").ask(self.QUERY.format(source.bucket))

    def test_a_bucket_that_is_not_there(self, influxd):
        with pytest.raises(ConfigError, match="could not find bucket"):
            source_of(influxd, "nowhere").ask(self.QUERY.format("nowhere"))

    def test_a_server_that_does_not_answer(self):
        away = FluxSource("http://127.0.0.1:9", org="o", bucket="b", token="t")
        with pytest.raises(WriteUnavailable, match=r"http://127\.0\.0\.1:9: no connection"):
            away.ask("1")

    def test_the_frames_are_those_that_influxdb_client_reads(self, influxd, source):
        """Which has the same tables, and other names for their columns."""
        query = f"""from(bucket: "{source.bucket}") |> range(start: -2h)
            |> filter(fn: (r) => r._measurement == "gate_stats" and r._field == "mean" and r.run == "{seeded.GRU}")"""
        frames = source.ask(query).frames
        with InfluxDBClient(influxd.url, influxd.token, org=influxd.org) as client:
            tables = client.query_api().query(query)
        assert len(frames) == len(tables) == len(GRU.gate_names)
        for frame, table in zip(frames, tables, strict=True):
            assert frame.numbers[0].values == [record.get_value() for record in table.records]
            moments = [record.get_time().timestamp() for record in table.records]
            assert [moment / 1e9 for moment in frame.field("Time").values] == pytest.approx(
                moments, abs=2e-6
            )  # a datetime is cut to microseconds
            assert frame.labels["gate"] == table.records[0]["gate"]
            assert frame.name == "gate_stats"


class TestVariables:
    def test_the_run_heard_of_last_comes_first(self, opened):
        found = options(opened("gates")["run"])
        assert set(found) == set(seeded.RUN_NAMES)
        assert found[-1] == seeded.DIED
        assert set(found[:3]) == {seeded.HOSTILE, seeded.GRU, seeded.COLLAPSED}

    def test_only_the_runs_that_have_a_tag(self, opened):
        assert options(opened("runs")["tag"]) == ["any", "my tag", "strategy", "symbol"]

        def listed(**chosen):
            return {run for run, _ in rows_of(opened("runs", **chosen)["Runs"][:1])}

        assert listed() == set(seeded.RUN_NAMES)
        assert listed(tag="symbol") == set(seeded.RUN_NAMES)
        goog = {seeded.COLLAPSED, seeded.HEALTHY, seeded.BACKTEST, seeded.GRU}
        assert listed(tag="symbol", value=["GOOG", "EURUSD"]) == goog
        assert listed(tag="symbol", value=[seeded.HOSTILE_TAGS["symbol"]]) == {seeded.HOSTILE}
        assert listed(tag="my tag", value=["a, b=c"]) == {seeded.HOSTILE}

    def test_when_a_run_began_and_ended(self, opened, now):
        """With a fiftieth of its length and five seconds before and after."""
        room = 89 * 20_000 // 50 + 5_000
        first = seeded.begin(now, silent=300 * SECOND) // 10**6
        found = opened("learning", run=seeded.HEALTHY)
        assert int(options(found["begin"])[0]) == pytest.approx(first - room, abs=1)
        assert int(options(found["end"])[0]) == pytest.approx(first + 89 * 20_000 + room, abs=1)
        assert options(opened("learning", run=seeded.COLLAPSED)["end"]) in (["now"], options(found["end"]))
        assert options(opened("learning", run=seeded.DIED)["end"])[0].isdigit()
        market = int(options(opened("backtest", run=seeded.BACKTEST)["begin"])[0]) * 10**6
        assert seeded.market_begin(now) - 3 * seeded.DAY < market < seeded.market_begin(now)

    @pytest.mark.parametrize(("event", "goes_on"), [("heartbeat", True), ("completed", False)])
    def test_a_run_has_ended_as_soon_as_it_says_so(self, boards, influxd, event, goes_on):
        bucket, moment = influxd.bucket(), time.time_ns()
        tags = {"run": "r", "phase": "train"}
        influxd.store(bucket).write(
            [
                Point(RUNS, tags, {"event": "started", "step": 0}, moment - 60 * SECOND),
                Point(RUNS, tags, {"event": event, "step": 3}, moment - SECOND),
                Point(GATE_STATS, {**tags, "layer": "l", "gate": "forget"}, {"step": 3}, moment - 2 * SECOND),
            ]
        )
        asked = open_dashboard(boards["gatewatch-gates"], source_of(influxd, bucket), now=moment)
        (end,) = options(one for one in asked if one.panel == "end")
        assert end == ("now" if goes_on else str((moment - 2 * SECOND + 5 * SECOND) // 10**6))

    def test_the_layers_and_phases_of_the_run(self, opened):
        found = opened("gates", run=seeded.COLLAPSED)
        assert options(found["layer"]) == list(seeded.LAYERS)
        assert options(found["phase"]) == ["train"]
        assert options(opened("gates", run=seeded.BACKTEST)["phase"]) == ["backtest"]

    @pytest.mark.parametrize("name", ["gates", "compare", "backtest"])
    def test_the_layer_with_the_worst_score_comes_first(self, boards, influxd, now, name):
        """The scores of other phases, runs, detectors, and of what has no gates, are not asked."""
        source = scored(
            influxd,
            now,
            ["a", "b", "c", "d"],
            [
                ("backtest", "c", "forget", "consensus", 2.0),
                ("backtest", "b", "forget", "consensus", 1.5),
                ("backtest", "b", "input", "consensus", 0.2),
                ("backtest", "a", "forget", "isolation_forest", 9.0),
                ("train", "d", "forget", "consensus", 9.0),
                ("backtest", "_model", "loss", "consensus", 9.0),
                ("backtest", "dense", "kernel", "consensus", 9.0),
            ],
        )
        assert layers_of(boards[f"gatewatch-{name}"], source, now, phase="backtest") == ["c", "a", "b", "d"]

    def test_the_scores_of_the_time_range_go_before_those_of_other_times(self, boards, influxd, now):
        source = scored(influxd, now, ["a", "b", "c"], [("train", "b", "forget", "consensus", 2.0)])
        gates, lately = boards["gatewatch-gates"], (now - 60 * SECOND, now)
        assert layers_of(gates, source, now, lately, phase="train") == ["b", "a", "c"]
        tags = {"run": "r", "phase": "train", "layer": "c", "gate": "forget", "detector": "consensus"}
        influxd.store(source.bucket).write([Point(GATE_SCORES, tags, {"anomaly_score": 1.2}, now - SECOND)])
        assert layers_of(gates, source, now, lately, phase="train") == ["c", "a", "b"]
        assert layers_of(gates, source, now, (now - 2 * HOUR, now), phase="train") == ["b", "a", "c"]

    @pytest.mark.parametrize("name", ["gates", "compare", "backtest"])
    def test_layers_without_scores_come_by_name(self, boards, influxd, now, name):
        source = scored(influxd, now, ["b", "a"], [])
        assert layers_of(boards[f"gatewatch-{name}"], source, now, phase="backtest") == ["a", "b"]

    def test_the_worst_layer_of_a_run_with_a_hostile_name(self, boards, influxd, now):
        worst = [("train", seeded.HOSTILE_LAYER, "forget", "consensus", 2.0)]
        source = scored(influxd, now, ["a", seeded.HOSTILE_LAYER, "z"], worst, run=seeded.HOSTILE)
        found = layers_of(boards["gatewatch-gates"], source, now, run=seeded.HOSTILE, phase="train")
        assert found == [seeded.HOSTILE_LAYER, "a", "z"]

    @pytest.mark.parametrize(("run", "gates"), [(seeded.COLLAPSED, LSTM.gate_names), (seeded.GRU, GRU.gate_names)])
    def test_each_run_shows_its_own_gates(self, opened, run, gates):
        found = opened("gates", run=run)
        shown = options(found["gate"]) + options(found["state"])
        assert {text.partition("|")[2] for text in shown} == set(gates)
        for gate in gates:
            for suffix in ("", ", by position", ", distribution"):
                assert sum(one.rows for one in found[f"{gate}{suffix}"]) > 0
        bands = [*found["Gates, mean and band"][0].frames, *found["States, mean and band"][0].frames]
        ends = ("", ", 5 %", ", 95 %")
        assert {frame.numbers[0].name for frame in bands} == {f"{gate}{end}" for gate in gates for end in ends}

    def test_the_other_run_is_another(self, opened):
        found = opened("compare", run=seeded.COLLAPSED)
        assert seeded.COLLAPSED in options(found["run"])
        assert seeded.COLLAPSED not in options(found["other"])

    def test_only_runs_in_market_time(self, opened):
        assert options(opened("backtest")["run"]) == [seeded.BACKTEST]


@pytest.fixture(scope="module")
def opened_runs(boards, influxd, source):
    """The dashboard, while those that live are heard of."""
    now = time.time_ns()
    influxd.store(source.bucket).write(seeded.heartbeats(now))
    found = [*open_dashboard(boards["gatewatch-runs"], source, now=now + 1)]
    assert [one.problem for one in found if one.problem] == []
    return found


@pytest.fixture(scope="module")
def rows(opened_runs):
    return rows_of(one for one in opened_runs if one.panel == "Runs")


class TestRuns:
    def test_a_row_for_each_run_says_what_is_wrong_where_and_since_when(self, rows, now):
        assert {run for run, _ in rows} == set(seeded.RUN_NAMES)
        collapsed = rows[seeded.COLLAPSED, "train"]
        assert (collapsed["state"], collapsed["where"]) == ("live", "lstm_0 forget")
        assert (collapsed["worst score"] > 2.5, collapsed["source"]) == (True, "network")
        onset = seeded.begin(now) + seeded.ONSET * seeded.EVERY
        assert 0 <= collapsed["above 1 since"] * 10**6 - onset < 3 * seeded.EVERY
        assert rows[seeded.HEALTHY, "train"]["above 1 since"] is None
        assert (rows[seeded.BACKTEST, "backtest"]["where"][:7], rows[seeded.BACKTEST, "backtest"]["layer"]) == (
            "memory ",
            "memory",
        )
        assert rows[seeded.BACKTEST, "backtest"]["reward"] > 50
        assert rows[seeded.HEALTHY, "train"]["worst score"] < 1
        assert rows[seeded.FAILED, "train"]["error"].startswith('ValueError: "loss" is NaN')

    def test_the_list_has_the_columns_that_matter_and_no_others(self, rows):
        shown = {"run", "phase", "state", "worst score", "where", "source", "above 1 since", "loss", "reward"}
        assert set().union(*rows.values()) == shown | {"last heard of", "error", "layer", "from", "to"}

    def test_the_rest_is_in_a_second_table(self, opened_runs):
        more = rows_of(one for one in opened_runs if one.panel == "More about each run")
        assert set(more) == {(run, "backtest" if run == seeded.BACKTEST else "train") for run in seeded.RUN_NAMES}
        collapsed = more[seeded.COLLAPSED, "train"]
        assert (collapsed["step"], collapsed["symbol"], collapsed["strategy"]) == (89, "GOOG", "momentum")
        assert collapsed["model"] == "Sequential policy"
        assert collapsed["best val loss"] < collapsed["val loss"]
        assert more[seeded.HOSTILE, "train"]["symbol"] == seeded.HOSTILE_TAGS["symbol"]

    def test_the_worst_scores_are_those_of_all_runs_also_of_a_backtest_long_ago(self, opened_runs):
        bars = rows_of(one for one in opened_runs if one.panel == "Worst scores")
        assert set(bars) == {(run, "backtest" if run == seeded.BACKTEST else "train") for run in seeded.RUN_NAMES}
        assert bars[seeded.COLLAPSED, "train"]["worst score"] > 2.5
        assert bars[seeded.BACKTEST, "backtest"]["worst score"] < 1

    def test_a_reward_is_a_reward_whatever_it_is_called(self, boards, influxd, now):
        bucket, points = influxd.bucket(), []
        named = ("rollout/ep_rew_mean", "reward", "Episode_Reward", "charts/episodic_return", "equity", "sharpe")
        for number, name in enumerate(named):
            tags = {"run": f"r{number}", "phase": "train"}
            points.append(Point(RUNS, tags, {"event": "completed", "step": 5}, now - SECOND))
            logged = {name: 2.0, "rollout/ep_len_mean": 9.0, "accuracy": 8.0, "step": 5}
            points.append(Point("train_metrics", tags, logged, now - 2 * SECOND))
        influxd.store(bucket).write(points)
        asked = open_dashboard(boards["gatewatch-runs"], source_of(influxd, bucket), now=now)
        rows = rows_of(one for one in asked if one.panel == "Runs")
        assert [rows[f"r{number}", "train"]["reward"] for number in range(6)] == [2.0] * 6

    def test_the_states_are_those_of_the_command(self, rows, influxd, source):
        known = influxd.store(source.bucket).runs()
        moment = time.time_ns()
        for run, state, seen in zip(known["run"], known["state"], known["last_seen"], strict=True):
            (shown,) = (row["state"] for (name, _), row in rows.items() if name == run)
            assert shown == current_state(state, (moment - seen.value) / 1e9), run
        assert {row["state"] for row in rows.values()} == {"live", "died", "failed", "completed"}

    def test_the_counts(self, opened_runs):
        ((frame,),) = (one.frames for one in opened_runs if one.panel == "Runs by state")
        counted = {field.name: field.values for field in frame.fields}
        assert counted == {"live": [3], "died": [1], "failed": [1], "completed": [2], "interrupted": [0]}

    def test_a_link_leads_into_the_runs_own_time(self, rows, now):
        begin, end = (int(rows[seeded.BACKTEST, "backtest"][name]) * 10**6 for name in ("from", "to"))
        first = seeded.market_begin(now)
        last = first + (seeded.BACKTEST_DAYS - 1) * seeded.DAY
        assert first - 3 * seeded.DAY < begin < first
        assert last < end < last + 3 * seeded.DAY
        begin, end = (int(rows[seeded.HEALTHY, "train"][name]) * 10**6 for name in ("from", "to"))
        first = seeded.begin(now, silent=300 * SECOND)
        assert begin <= first < first + (seeded.CAPTURES - 1) * seeded.EVERY <= end < now

    def test_a_link_into_a_run_that_lives_goes_on_with_it(self, boards, influxd, now):
        bucket = influxd.bucket()
        tags, moment = {"run": "r", "phase": "live"}, time.time_ns()
        gate = {**tags, "layer": "l", "gate": "forget"}
        influxd.store(bucket).write(
            [
                Point(RUNS, tags, {"event": "heartbeat", "step": 3}, moment - SECOND),
                Point("gate_stats", gate, {"mean": 0.5, "step": 3}, moment - SECOND),
            ]
        )
        asked = open_dashboard(boards["gatewatch-runs"], source_of(influxd, bucket), now=moment)
        row = rows_of(one for one in asked if one.panel == "Runs")["r", "live"]
        assert row["to"] == "now"
        assert int(row["from"]) < moment // 10**6

    def test_five_hundred_runs(self, boards, influxd, now):
        bucket = influxd.bucket()
        influxd.store(bucket).write(seeded.many(now, 600))
        found = [*open_dashboard(boards["gatewatch-runs"], source_of(influxd, bucket), now=now)]
        assert [one.problem for one in found if one.problem] == []
        rows = rows_of(one for one in found if one.panel == "Runs")
        assert len(rows) == MOST_RUNS
        assert {run for run, _ in rows} == {f"run-{number:04d}" for number in range(100, 600)}
        assert all("loss" in row for row in rows.values())
        (frame,) = next(one for one in found if one.panel == "Runs by state").frames
        assert (frame.field("failed").values, frame.field("completed").values) == ([60], [540])


class TestGates:
    def test_the_collapse_is_plain_to_see(self, opened, now):
        found = opened("gates", run=seeded.COLLAPSED, layer=seeded.LAYERS[0])
        (shown,) = found["forget"]
        assert len(shown.frames) == seeded.UNITS
        for frame in shown.frames:
            unit = frame.numbers[0].values
            assert min(unit[:10]) > 0.3
            assert max(unit[-10:]) < 0.05
        assert [frame.numbers[0].name for frame in shown.frames][:11] == [f"unit  {i}" for i in range(10)] + ["unit 10"]
        (wrong,) = found["What is wrong with its units"][0].frames
        assert wrong.fields[-1].values == ["wrong: forget fully shut, 100%"]
        assert values(found["Memory kept"])[0] < 0.02
        assert values(found["Memory timescale"])[-1] < 0.5
        assert values(found["Worst score, limit 1"])[0] > 2.5
        assert [frame.fields[-1].values for one in found["Run"] for frame in one.frames] in ([["live"]], [["died"]])

    def test_the_other_layer_is_well(self, opened):
        found = opened("gates", run=seeded.COLLAPSED, layer=seeded.LAYERS[1])
        assert 0.5 < values(found["Memory kept"])[0] < 0.95
        assert values(found["Worst score, limit 1"])[0] < 1
        (wrong,) = found["What is wrong with its units"][0].frames
        assert wrong.fields[-1].values == ["nothing"]

    def test_the_worst_of_the_units(self, boards, influxd, now):
        """A gate that is fully shut goes before dead units, and those before frozen ones, which may follow from it."""
        bucket = influxd.bucket()
        tags = {"run": "r", "phase": "train", "layer": "l"}
        started = Point(RUNS, {"run": "r", "phase": "train"}, {"event": "started", "step": 0}, now - 2 * SECOND)

        def gate(name, measurement, **fields):
            return Point(measurement, {**tags, "gate": name}, fields, now - SECOND)

        usual = gate("input", GATE_STATS, saturated_low=0.1, saturated_high=0.0, step=1)
        influxd.store(bucket).write([started, usual, gate("cell", "gate_derived", saturation=0.7, frozen_units=0.2)])

        def shown():
            asked = open_dashboard(boards["gatewatch-gates"], source_of(influxd, bucket), now=now)
            (one,) = (one for one in asked if one.panel == "What is wrong with its units")
            return one.frames[0].fields[-1].values

        assert shown() == ["nearly: cell at its ends, 70%"]
        influxd.store(bucket).write([gate("hidden", "gate_derived", frozen_units=1.0)])
        assert shown() == ["wrong: frozen units of hidden, 100%"]
        influxd.store(bucket).write([gate("hidden", "gate_derived", dead_share=0.625)])
        assert shown() == ["wrong: dead units, 63%"]
        influxd.store(bucket).write([gate("input", GATE_STATS, saturated_low=0.95, saturated_high=0.01, step=1)])
        assert shown() == ["wrong: input fully shut, 95%"]

    def test_a_layer_of_many_units_has_groups_of_them(self, boards, influxd, now):
        bucket = influxd.bucket()
        tags = {"run": "r", "phase": "train", "layer": "l", "gate": "forget"}
        started = Point(RUNS, {"run": "r", "phase": "train"}, {"event": "started", "step": 0}, now - 2 * SECOND)
        profile = {f"u{i:03d}": i / 64 for i in range(64)} | {"step": 1}
        told = [Point("gate_units", tags, profile, now - SECOND), Point(GATE_STATS, tags, {"step": 1}, now - SECOND)]
        influxd.store(bucket).write([started, *told])
        asked = open_dashboard(boards["gatewatch-gates"], source_of(influxd, bucket), now=now)
        (shown,) = (one for one in asked if one.panel == "forget")
        names = [frame.numbers[0].name for frame in shown.frames]
        assert names == [f"group {i:2d}" for i in range(64)]
        assert [frame.numbers[0].values[-1] for frame in shown.frames] == [i / 64 for i in range(64)]

    def test_what_is_saturated_in_words(self, opened):
        (shown,) = opened("gates", run=seeded.COLLAPSED, layer=seeded.LAYERS[0])["Saturation"]
        names = {frame.numbers[0].name for frame in shown.frames}
        assert len(names) == 8
        assert {"forget, fully shut", "cell, at its high end"} <= names

    def test_a_layer_that_was_never_anomalous_has_no_since(self, opened):
        healthy = opened("gates", run=seeded.HEALTHY)
        assert values(healthy["First anomalous"]) == []
        assert values(opened("gates", run=seeded.COLLAPSED)["First anomalous"])[0] > 0

    def test_a_cell_state_is_shown_as_what_passes(self, opened):
        shown = values(opened("gates", run=seeded.HEALTHY)["cell"])
        assert min(shown) < -0.5
        assert max(shown) > 0.5
        assert all(-1 < value < 1 for value in shown)

    def test_a_distribution_is_whole(self, opened):
        (shown,) = opened("gates", run=seeded.HEALTHY)["forget, distribution"]
        names = [frame.numbers[0].name for frame in shown.frames]
        assert (names[:3], names[-1]) == ([" 0 to 5 %", " 5 to 10 %", "10 to 15 %"], "95 to 100 %")
        columns = zip(*(frame.numbers[0].values for frame in shown.frames), strict=True)
        assert all(math.isclose(sum(column), 1, abs_tol=1e-6) for column in columns)

    def test_hostile_names(self, opened):
        found = opened("gates", run=seeded.HOSTILE)
        assert options(found["layer"]) == [seeded.HOSTILE_LAYER]
        assert len(found["forget"][0].frames) == seeded.UNITS
        assert sum(one.rows for one in found["Saturation"]) > 0


class TestLearning:
    def test_the_losses_part(self, opened):
        found = opened("learning", run=seeded.COLLAPSED)
        assert {frame.numbers[0].name for frame in found["Loss"][0].frames} == {"loss", "val_loss"}
        assert values(found["Generalisation gap"])[-1] > 1

    def test_it_says_first_what_is_wrong(self, opened):
        def said(run):
            (frame,) = opened("learning", run=run)["What is wrong with its learning"][0].frames
            return frame.fields[-1].values

        assert said(seeded.COLLAPSED) == ["wrong: validation loss far above the training loss"]
        assert said(seeded.GRU) == ["nothing"]

    @pytest.mark.parametrize(
        ("points", "said"),
        [
            ([("gate_stats", "forget", {"nan_count": 2})], "wrong: values that are not finite, l forget"),
            ([("gate_derived", "kernel", {"gradient_state": -1.0})], "wrong: vanished gradient, l kernel"),
            ([("gate_derived", "hidden", {"dead_share": 0.6})], "wrong: dead units, l hidden"),
            (
                [
                    ("gate_derived", "kernel", {"gradient_state": 1.0}),
                    ("gate_derived", "kernel", {"gradient_state": 0.0}),
                ],
                "look at: the gradient exploded, l kernel",
            ),
            ([("gate_derived", "bias", {"update_band": -1.0})], "look at: weights hardly move, l bias"),
            ([("gate_derived", "bias", {"update_band": 1.0})], "look at: steps too large, l bias"),
            ([("gate_derived", "hidden", {"dead_share": 0.1})], "nothing"),
        ],
    )
    def test_what_is_wrong_in_words(self, boards, influxd, now, points, said):
        bucket = influxd.bucket()
        tags = {"run": "r", "phase": "train"}
        recorded = [
            Point(measurement, {**tags, "layer": "l", "gate": gate}, fields, now - (20 - k) * SECOND)
            for k, (measurement, gate, fields) in enumerate(points)
        ]
        begun = Point(RUNS, tags, {"event": "started", "step": 0}, now - 60 * SECOND)
        sound = Point(GATE_STATS, {**tags, "layer": "l", "gate": "input"}, {"mean": 0.5, "nan_count": 0}, now - SECOND)
        influxd.store(bucket).write([begun, sound, *recorded])
        asked = [*open_dashboard(boards["gatewatch-learning"], source_of(influxd, bucket), now=now)]
        (frame,) = next(one for one in asked if one.panel == "What is wrong with its learning").frames
        assert frame.fields[-1].values == [said]
        first = values(one for one in asked if one.panel == "That was seen first")
        assert first == ([] if said == "nothing" else [(now - 20 * SECOND) // 10**6])

    def test_what_a_policy_logs_is_parted_by_size(self, boards, influxd, now):
        """A count of timesteps on the axis of a reward would leave of the reward a line at the bottom."""
        bucket = influxd.bucket()
        tags = {"run": "r", "phase": "train"}
        logged = {
            **{"reward": 1.5, "rollout/ep_rew_mean": 1.0, "rollout/ep_len_mean": 580.0, "episodes": 4},
            **{
                "time/total_timesteps": 25600,
                "actions": 640,
                "time/fps": 300,
                "train/n_updates": 500,
                "train/learning_rate": 3e-4,
            },
            **{"train/loss": 0.1, "train/value_loss": 400.0, "train/approx_kl": 1e-4, "step": 9, "epoch": 1},
            **{"train/clip_fraction": 0.1, "train/entropy_loss": -0.6, "train/explained_variance": 0.5},
            **{"train/std": 0.9, "action_share": 0.5, "position_share": 0.6, "losses/clipfrac": 0.2, "entropy": 0.6},
            **{"advantage_std": 80.0, "cross_entropy": 3.0},
        }
        influxd.store(bucket).write(
            [
                Point(RUNS, tags, {"event": "started", "step": 0}, now - 3 * SECOND),
                Point("train_metrics", tags, logged, now - 2 * SECOND),
            ]
        )
        found: dict[str, set[str]] = {}
        for one in open_dashboard(boards["gatewatch-learning"], source_of(influxd, bucket), now=now):
            assert one.problem is None
            if one.kind == "timeseries" and one.rows:
                found[one.panel] = {frame.numbers[0].name for frame in one.frames}
        assert found == {
            "Loss": {"train/loss"},
            "Reward": {"reward", "rollout/ep_rew_mean"},
            "Learning rate": {"train/learning_rate"},
            "Policy": {
                *("train/entropy_loss", "train/explained_variance", "train/std", "entropy"),
                *("action_share", "position_share"),
            },
            "How far the policy moves": {"train/approx_kl", "train/clip_fraction", "losses/clipfrac"},
            "advantage_std": {"advantage_std"},
            "cross_entropy": {"cross_entropy"},
            "train/value_loss": {"train/value_loss"},
        }

    def test_an_explosion_in_a_long_time_range_is_not_averaged_away(self, boards, influxd, now):
        bucket = influxd.bucket()
        tags = {"run": "r", "phase": "train", "layer": "l", "gate": "kernel"}
        states = [0.0] * 50 + [1.0] + [0.0] * 49
        gate = Point(GATE_STATS, {**tags, "gate": "forget"}, {"mean": 0.5, "step": 1}, now - SECOND)
        begun = Point(RUNS, {"run": "r", "phase": "train"}, {"event": "started", "step": 0}, now - 200 * SECOND)
        points = [
            Point("gate_derived", tags, {"gradient_state": state}, now - (100 - k) * SECOND)
            for k, state in enumerate(states)
        ]
        influxd.store(bucket).write([begun, gate, *points])
        window = (now - 6 * HOUR, now)
        asked = open_dashboard(boards["gatewatch-learning"], source_of(influxd, bucket), now=now, window=window)
        (shown,) = (one for one in asked if one.panel == "Gradient state")
        assert shown.kind == "state-timeline"
        assert "explodes" in {text for frame in shown.frames for text in frame.fields[-1].values}

    def test_a_gradient_with_nan_is_not_finite_until_its_run_ends(self, boards, influxd, now):
        bucket = influxd.bucket()
        tags = {"run": "r", "phase": "train", "layer": "l"}
        points = [
            Point(RUNS, {"run": "r", "phase": "train"}, {"event": "started", "step": 0}, now - 900 * SECOND),
            Point(RUNS, {"run": "r", "phase": "train"}, {"event": "completed", "step": 9}, now - 300 * SECOND),
        ]
        for k in range(60):
            moment = now - (900 - 10 * k) * SECOND
            points.append(Point(GATE_STATS, {**tags, "gate": "forget"}, {"mean": 0.5, "step": k}, moment))
            counted = {"nan_count": 7 if k >= 30 else 0, "inf_count": 0, "step": k}
            points.append(Point("layer_updates", {**tags, "param": "kernel"}, counted, moment))
            if k < 30:
                points.append(Point("gate_derived", {**tags, "gate": "kernel"}, {"gradient_state": 0.0}, moment))
        influxd.store(bucket).write(points)
        window = (now - 1000 * SECOND, now)
        asked = open_dashboard(boards["gatewatch-learning"], source_of(influxd, bucket), now=now, window=window)
        ((frame,),) = (one.frames for one in asked if one.panel == "Gradient state")
        texts = frame.fields[-1].values
        assert [text for text, before in zip(texts, [None, *texts], strict=False) if text != before] == [
            *("usual", "not finite", "ended")
        ]
        assert abs(frame.field("Time").values[-1] - (now - 310 * SECOND)) < 2 * SECOND

    def test_every_parameter_before_and_after_clipping(self, opened):
        (shown,) = opened("learning", run=seeded.COLLAPSED)["Gradient norm, before and after clipping"]
        series = {(f.labels["layer"], f.labels["param"], f.numbers[0].name) for f in shown.frames}
        params = ("kernel", "recurrent", "bias")
        norms = ("gradient_norm", "gradient_norm_clipped")
        assert series == {(layer, param, norm) for layer in seeded.LAYERS for param in params for norm in norms}

    def test_what_is_not_finite(self, boards, influxd, now):
        bucket = influxd.bucket()
        tags = {"run": "r", "phase": "train", "layer": "l", "gate": "forget"}
        influxd.store(bucket).write(
            [
                Point(RUNS, {"run": "r", "phase": "train"}, {"event": "started", "step": 0}, now - 2 * SECOND),
                Point("gate_stats", tags, {"nan_count": 3, "inf_count": 0, "step": 1}, now - SECOND),
            ]
        )
        asked = open_dashboard(boards["gatewatch-learning"], source_of(influxd, bucket), now=now + SECOND)
        (shown,) = (one for one in asked if one.panel == "Values that are not finite")
        assert values([shown]) == [3]
        assert shown.frames[0].labels == {"layer": "l", "part": "forget"}


class TestAnomalies:
    def test_the_score_of_the_gate_that_fell(self, opened):
        found = opened("anomalies", run=seeded.COLLAPSED)
        (shown,) = found["Anomaly score"]
        worst = max(shown.frames, key=lambda frame: max(frame.numbers[0].values))
        assert worst.labels == {"layer": seeded.LAYERS[0], "gate": "forget"}
        assert {"kernel", "loss"} <= {frame.labels["gate"] for frame in shown.frames}

    def test_what_is_wrong_since_when_and_why(self, opened, now):
        found = opened("anomalies", run=seeded.COLLAPSED)
        (frame,) = found["What is wrong, and why"][0].frames
        columns = {field.name: field.values for field in frame.fields}
        assert columns["where"][0] == f"{seeded.LAYERS[0]} forget"
        assert columns["layer"][0] == seeded.LAYERS[0]
        assert columns["why"][0] == "at once a large part of the gate is stuck fully open or shut"
        since = seeded.begin(now) + columns["at step"][0] * seeded.EVERY
        assert seeded.ONSET <= columns["at step"][0] <= seeded.ONSET + 3
        assert columns["since"][0] == since
        assert columns["worst"][0] > columns["now"][0] > 1
        assert columns["worst"] == sorted(columns["worst"], reverse=True)
        assert [frame.fields[-1].values for frame in found["Anomalous"][0].frames] == [["2 of 23"]]
        assert values(found["First anomalous"]) == [since // 10**6]

    def test_a_score_without_causes_is_shown_all_the_same(self, boards, influxd):
        bucket, moment = influxd.bucket(), time.time_ns()
        influxd.store(bucket).write(pause(moment))
        asked = open_dashboard(boards["gatewatch-anomalies"], source_of(influxd, bucket), now=moment)
        (frame,) = next(one for one in asked if one.panel == "What is wrong, and why").frames
        row = {field.name: field.values[0] for field in frame.fields}
        assert (row["where"], row["why"], row["at step"], row["worst"], row["now"]) == (
            "l forget",
            "no cause was recorded",
            1,
            2.0,
            2.0,
        )
        assert row["since"] == moment - 3 * HOUR - 600 * SECOND

    def test_the_causes_in_words(self, opened):
        (frame,) = opened("anomalies", run=seeded.COLLAPSED)["Causes"][0].frames
        rows = dict(zip(frame.field("cause").values, frame.field("size").values, strict=True))
        assert frame.field("cause").values[0] == "at once a large part of the gate is stuck fully open or shut"
        assert rows["the gate closes further than its trend"] > 10
        assert frame.field("gate").values[0] == "forget"

    def test_a_healthy_run_has_none(self, opened):
        found = opened("anomalies", run=seeded.HEALTHY)
        assert found["What is wrong, and why"][0].rows == found["Causes"][0].rows == 0
        assert [frame.fields[-1].values for frame in found["Anomalous"][0].frames] == [["none of 23"]]

    def test_a_run_without_scores_is_not_called_healthy(self, boards, influxd, now):
        bucket = influxd.bucket()
        started = Point(RUNS, {"run": "r", "phase": "train"}, {"event": "started", "step": 0}, now - SECOND)
        influxd.store(bucket).write([started])
        asked = open_dashboard(boards["gatewatch-anomalies"], source_of(influxd, bucket), now=now)
        (count,) = (one for one in asked if one.panel == "Anomalous")
        assert count.rows == 0
        (panel,) = (panel for panel in boards["gatewatch-anomalies"]["panels"] if panel["title"] == "Anomalous")
        assert panel["fieldConfig"]["defaults"]["noValue"] == "not scored here"

    def test_the_states_end_where_the_run_ended(self, opened, now):
        (shown,) = opened("anomalies", run=seeded.DIED)["State of each gate"]
        end = seeded.begin(now, 40, silent=900 * SECOND) + 39 * seeded.EVERY
        assert len(shown.frames) == 8
        for frame in shown.frames:
            assert frame.field("Value").values[-1] == "ended"
            assert set(frame.field("Value").values[:-1]) == {"normal"}
            assert frame.field("Time").values[-1] == end + 1

    def test_a_time_in_which_the_run_was_not_has_no_states(self, opened):
        assert opened("anomalies", run=seeded.BACKTEST)["State of each gate"][0].rows == 0

    def test_the_states_of_a_run_that_lives_go_on(self, boards, influxd, now):
        bucket = influxd.bucket()
        influxd.store(bucket).write(pause(time.time_ns()))
        asked = open_dashboard(
            boards["gatewatch-anomalies"], source_of(influxd, bucket), now=time.time_ns(), chosen={"run": "r"}
        )
        (frame,) = next(one for one in asked if one.panel == "State of each gate").frames
        assert frame.field("Value").values[-1] == "anomalous"
        apart = {b - a for a, b in pairwise(frame.field("Time").values[1:])}
        assert len(apart) == 1  # through the pause
        assert "ended" not in frame.field("Value").values
        ended = Point(RUNS, {"run": "r", "phase": "train"}, {"event": "completed", "step": 2}, time.time_ns())
        influxd.store(bucket).write([ended])
        asked = open_dashboard(boards["gatewatch-anomalies"], source_of(influxd, bucket), now=time.time_ns())
        (frame,) = next(one for one in asked if one.panel == "State of each gate").frames
        assert frame.field("Value").values[-1] == "ended"

    def test_each_detector(self, opened):
        (shown,) = opened("anomalies", run=seeded.COLLAPSED)["What each detector says"]
        said = {frame.labels["detector"]: max(frame.numbers[0].values) for frame in shown.frames}
        assert set(said) == {"isolation_forest", "robust", "rules", "checks", "data", "consensus"}
        assert said["consensus"] == max(said[name] for name in ("robust", "rules", "checks"))

    def test_its_alerts_lead_to_the_runbook(self, opened, boards):
        (frame,) = opened("anomalies", run=seeded.COLLAPSED)["Alerts of this run"][0].frames
        assert frame.field("rule").values == ["forget_gate_shut"]
        (number,) = frame.field("section").values
        titles = {panel["id"]: panel["title"] for panel in panels(boards["gatewatch-runbook"])}
        assert titles[int(number)] == "forget_gate_shut"

    def test_annotations(self, opened):
        found = opened("anomalies", run=seeded.COLLAPSED)
        (events,) = found["Run events"][0].frames
        assert events.field("title").values == ["started"]
        (alerts,) = found["Alerts"][0].frames
        assert alerts.field("title").values == ["forget_gate_shut firing"]
        assert alerts.field("text").values == [f"{seeded.COLLAPSED} {seeded.LAYERS[0]} forget"]
        assert [field.kind for field in alerts.fields][:1] == ["time"]


class TestCompare:
    MEAN = "Mean of ${gate:text} in ${layer:text}"

    def test_two_runs_at_the_same_step(self, opened):
        found = opened("compare", run=seeded.COLLAPSED, other=seeded.HEALTHY, gate="forget")
        (frame,) = found[self.MEAN][0].frames
        names = [field.name for field in frame.fields]
        assert names == ["step", f"1: {seeded.COLLAPSED}", f"2: {seeded.HEALTHY}"]
        step, fallen, well = (field.values for field in frame.fields)
        assert step == list(range(seeded.CAPTURES))
        assert fallen[: seeded.ONSET] == pytest.approx(well[: seeded.ONSET])
        assert fallen[-1] < 0.02
        assert well[-1] > 0.5

    def test_runs_captured_at_different_steps_have_no_zeros_between(self, boards, influxd, now):
        bucket, points = influxd.bucket(), []
        for run, spacing in (("two", 2), ("three", 3)):
            tags = {"run": run, "phase": "train"}
            gate = {**tags, "layer": "lstm", "gate": "forget"}
            points.append(Point(RUNS, tags, {"event": "completed", "step": 30}, now - SECOND))
            points += [
                Point(GATE_STATS, gate, {"mean": 0.5, "step": step}, now - (40 - step) * SECOND)
                for step in range(0, 31, spacing)
            ]
        influxd.store(bucket).write(points)
        chosen = {"run": "two", "other": "three"}
        asked = open_dashboard(boards["gatewatch-compare"], source_of(influxd, bucket), now=now, chosen=chosen)
        (frame,) = next(one for one in asked if one.panel == self.MEAN).frames
        step, two, three = (field.values for field in frame.fields)
        assert step == [0, 2, 3, 4, 6, 8, 9, 10, 12, 14, 15, 16, 18, 20, 21, 22, 24, 26, 27, 28, 30]
        assert two == [None if k % 2 else 0.5 for k in step]
        assert three == [None if k % 3 else 0.5 for k in step]

    def test_runs_of_unlike_length_and_time(self, opened):
        found = opened("compare", run=seeded.BACKTEST, other=seeded.COLLAPSED, phase="backtest", layer="memory")
        (frame,) = found[self.MEAN][0].frames
        assert [field.name for field in frame.fields] == ["step", f"1: {seeded.BACKTEST}"]
        assert len(frame) == seeded.BACKTEST_DAYS

    def test_what_neither_run_has_is_said(self, opened):
        found = opened("compare", run=seeded.COLLAPSED, other=seeded.HEALTHY)
        (reward,) = found["Reward"][0].frames
        assert {field.name for field in reward.numbers} == {"step", "Neither run has a reward"}
        assert reward.field("Neither run has a reward").values == [None]

    def test_the_runs_with_the_same_layers_are_offered_first(self, opened):
        assert options(opened("compare", run=seeded.COLLAPSED)["other"])[0] == seeded.HEALTHY
        assert options(opened("compare", run=seeded.HEALTHY)["other"])[0] == seeded.COLLAPSED
        assert set(options(opened("compare", run=seeded.DIED)["other"])[:1]) == {seeded.FAILED}

    @pytest.mark.parametrize(
        ("run", "other", "said"),
        [
            (seeded.COLLAPSED, seeded.HEALTHY, "1 is anomalous from step 62, first lstm_0 forget (network), 2 is not"),
            (seeded.HEALTHY, seeded.COLLAPSED, "2 is anomalous from step 62, first lstm_0 forget (network), 1 is not"),
            (
                seeded.COLLAPSED,
                seeded.GRU,
                "1 is anomalous from step 62, first lstm_0 forget (network), 2 is not; they share no layer",
            ),
            (seeded.HEALTHY, seeded.DIED, "Neither is anomalous; they share no layer"),
            (seeded.BACKTEST, seeded.HEALTHY, "1 is not anomalous, 2 has no scores; they share no layer"),
        ],
    )
    def test_it_says_which_is_anomalous_and_from_which_step_on(self, opened, run, other, said):
        phase = "backtest" if run == seeded.BACKTEST else "train"
        (frame,) = opened("compare", run=run, other=other, phase=phase)["What tells them apart"][0].frames
        assert [field.values for field in frame.fields] == [[said]]

    def test_it_says_where_the_runs_differ(self, opened):
        def both(**chosen):
            rows = {}
            for one in opened("compare", **chosen)["The two runs"]:
                for frame in one.frames:
                    for i, run in enumerate(frame.field("run").values):
                        rows.setdefault(run, {}).update({field.name: field.values[i] for field in frame.fields})
            return rows

        alike = both(run=seeded.COLLAPSED, other=seeded.HEALTHY)
        fallen, well = alike[f"1: {seeded.COLLAPSED}"], alike[f"2: {seeded.HEALTHY}"]
        assert (well["state"], well["step"]) == ("completed", seeded.CAPTURES - 1)
        assert fallen["worst score"] > 2.5
        assert well["worst score"] < 1
        assert fallen["layers"] == well["layers"] == "lstm_0, lstm_1"
        assert fallen["not in the other"] == well["not in the other"] == ""
        unlike = both(run=seeded.COLLAPSED, other=seeded.GRU)
        assert unlike[f"1: {seeded.COLLAPSED}"]["not in the other"] == "lstm_0, lstm_1"
        assert unlike[f"2: {seeded.GRU}"]["not in the other"] == "gru"
        other_phase = both(run=seeded.BACKTEST, other=seeded.COLLAPSED, phase="backtest")
        assert [row["layers"] for _, row in sorted(other_phase.items())] == ["memory", ""]

    def test_rewards_are_compared_by_a_name_that_both_runs_have_or_each_by_its_own(self, boards, influxd, now):
        bucket, points = influxd.bucket(), []
        logged = {
            "a": {"rollout/ep_rew_mean": 3.0},
            "b": {"equity": 9.0, "rollout/ep_rew_mean": 4.0},
            "c": {"return": 5.0},
        }
        for run, metrics in logged.items():
            tags = {"run": run, "phase": "train"}
            points.append(Point(RUNS, tags, {"event": "completed", "step": 5}, now - SECOND))
            points.append(Point("train_metrics", tags, {**metrics, "step": 5}, now - 2 * SECOND))
        influxd.store(bucket).write(points)
        for other, reward in (("b", 4.0), ("c", 5.0)):
            chosen = {"run": "a", "other": other}
            asked = open_dashboard(boards["gatewatch-compare"], source_of(influxd, bucket), now=now, chosen=chosen)
            (frame,) = next(one for one in asked if one.panel == "Reward").frames
            assert [field.values for field in frame.fields] == [[5], [3.0], [reward]]

    def test_a_long_run_has_few_points(self, boards, influxd, now):
        bucket = influxd.bucket()
        tags = {"run": "long", "phase": "train"}
        begin = now - 5000 * SECOND
        points = [Point("train_metrics", tags, {"loss": 1.0, "step": 7 * k}, begin + k * SECOND) for k in range(5000)]
        influxd.store(bucket).write([Point(RUNS, tags, {"event": "started", "step": 0}, begin), *points])
        asked = open_dashboard(boards["gatewatch-compare"], source_of(influxd, bucket), now=now)
        (frame,) = next(one for one in asked if one.panel == "Loss").frames
        steps = frame.field("step").values
        assert POINTS * 0.9 < len(steps) <= POINTS + 1
        assert steps == sorted(set(steps))


class TestBacktest:
    @pytest.fixture
    def shown(self, opened, now):
        begin = seeded.market_begin(now)
        return opened("backtest", (begin, begin + seeded.BACKTEST_DAYS * seeded.DAY))

    def test_the_choice_sets_the_time(self, shown, now):
        (frame,) = shown["Choose a backtest"][0].frames
        assert frame.field("run").values == [seeded.BACKTEST]
        assert frame.field("bars").values == [seeded.BACKTEST_DAYS]
        assert frame.field("first bar").values == [seeded.market_begin(now)]

    def test_gates_and_price_share_the_market_s_time(self, shown):
        (against,) = shown["Gates against price and position"]
        names = {frame.numbers[0].name for frame in against.frames}
        assert names == {"price", "position", "forget gate", "input gate", "output gate"}
        assert all(len(frame) > seeded.BACKTEST_DAYS * 0.9 for frame in against.frames)

    def test_memory_by_unit(self, shown):
        (units,) = shown["What each unit keeps"]
        assert len(units.frames) == seeded.UNITS


class TestHealth:
    JOBS_WORK = ("jobs_health", {"job": "detect"}, {"lag_s": 5.0, "failures": 0}, 30)
    LIVES = (RUNS, {"run": "r", "phase": "train"}, {"event": "heartbeat", "step": 1}, 30)

    @pytest.mark.parametrize(
        ("recorded", "said"),
        [
            ([JOBS_WORK, LIVES], "Works"),
            ([JOBS_WORK], "Works; nothing trains"),
            ([JOBS_WORK, (*LIVES[:2], {"event": "completed", "step": 1}, 5000)], "Works; nothing trains"),
            ([LIVES], "Trainings are recorded, no jobs score them"),
            ([(*JOBS_WORK[:3], 400), LIVES], "The jobs that score are silent, for 6 min"),
            ([(*JOBS_WORK[:2], {"lag_s": 301.0}, 30), LIVES], "The jobs are late"),
            (
                [
                    JOBS_WORK,
                    LIVES,
                    ("collector_health", LIVES[1], {"dropped": 0, "failures": 0}, 60),
                    ("collector_health", LIVES[1], {"dropped": 1, "failures": 1}, 59),
                ],
                "Points were lost of r, first 0 min ago",
            ),
            (
                [
                    JOBS_WORK,
                    *(
                        ("collector_health", {"run": "r", "phase": "train"}, {"failures": n}, 60 * 42 - 30 * n)
                        for n in range(3)
                    ),
                    *(("jobs_health", {"job": "derive"}, {"lag_s": 5.0, "failures": n}, 90 - 30 * n) for n in range(2)),
                ],
                "Captures failed of r, first 41 min ago",
            ),
            (
                [
                    JOBS_WORK,
                    *(
                        ("jobs_health", {"job": job}, {"lag_s": 5.0, "failures": n}, ago - 30 * n)
                        for n in range(3)
                        for job, ago in (("report", 60 * 90), ("derive", 60 * 150 + 29))
                    ),
                ],
                "Turns of the jobs failed: derive, first 2 h ago",
            ),
            ([JOBS_WORK, ("collector_health", LIVES[1], {"spooled_bytes": 2_000_000}, 30)], "Points wait in spools"),
            ([JOBS_WORK, LIVES, ("collector_health", LIVES[1], {"overhead_ratio": 0.05}, 30)], "Works"),
            (
                [JOBS_WORK, LIVES, ("collector_health", LIVES[1], {"overhead_ratio": 0.051}, 30)],
                "Watching slows a training down: see Cost of watching",
            ),
        ],
    )
    def test_it_says_in_words_whether_watching_works(self, boards, influxd, now, recorded, said):
        bucket, moment = influxd.bucket(), time.time_ns()
        influxd.store(bucket).write(
            Point(measurement, tags, fields, moment - ago * SECOND) for measurement, tags, fields, ago in recorded
        )
        asked = open_dashboard(boards["gatewatch-health"], source_of(influxd, bucket), now=moment)
        (shown,) = next(one for one in asked if one.panel == "Does the watching work?").frames
        assert shown.field("state").values == [said]

    def test_what_was_lost_and_what_failed(self, opened):
        found = opened("health")
        assert values(found["Points lost"]) == [0]
        assert values(found["Jobs failed"]) == [2]
        assert values(found["Scores lag"])[0] < 15
        assert 0 < values(found["Last sign of a run"])[0] < 600

    def test_scores_lag_behind_for_as_long_as_the_jobs_are_silent(self, boards, influxd):
        bucket, moment = influxd.bucket(), time.time_ns()
        influxd.store(bucket).write([Point("jobs_health", {"job": "detect"}, {"lag_s": 5.0}, moment - 600 * SECOND)])
        asked = open_dashboard(boards["gatewatch-health"], source_of(influxd, bucket), now=moment)
        (lag,) = values(one for one in asked if one.panel == "Scores lag")
        assert 605 <= lag < 660

    def test_a_counter_that_began_anew_is_added_up(self, boards, influxd, now):
        """A second process of the run counts from 0 again."""
        bucket = influxd.bucket()
        counts = [0, 5, 7, 0, 2]
        tags = {"run": "r", "phase": "live"}
        influxd.store(bucket).write(
            [
                Point("collector_health", tags, {"dropped": n}, now - (60 - k) * 30 * SECOND)
                for k, n in enumerate(counts)
            ]
        )
        asked = open_dashboard(boards["gatewatch-health"], source_of(influxd, bucket), now=now)
        assert values(one for one in asked if one.panel == "Points lost") == [9]

    def test_the_lines_of_many_runs_are_those_with_the_largest(self, boards, influxd, now):
        bucket = influxd.bucket()
        influxd.store(bucket).write(
            Point("collector_health", {"run": f"r{i:03d}", "phase": "train"}, {"capture_ms": float(i)}, now - SECOND)
            for i in range(60)
        )
        asked = open_dashboard(boards["gatewatch-health"], source_of(influxd, bucket), now=now + SECOND)
        (shown,) = (one for one in asked if one.panel == "Time of a capture")
        assert {frame.labels["run"] for frame in shown.frames} == {f"r{i:03d}" for i in range(52, 60)}


class TestCheck:
    def test_a_row_for_each_panel_and_one_for_variables_and_annotations(self, boards, source, now):
        rows = [*check([boards["gatewatch-gates"]], source, now=now, window=(now - HOUR, now))]
        assert {row.dashboard for row in rows} == {"Gates"}
        by_panel = {row.panel: row for row in rows}
        assert by_panel[VARIABLES].queries == 7  # run, phase, begin, end, layer, gate, state
        assert by_panel[ANNOTATIONS].queries == 2
        assert by_panel["Saturation"].rows > 0
        assert all(row.problem is None and row.milliseconds > 0 for row in rows)

    def test_a_query_that_fails_is_told(self, boards, source, now):
        (loss,) = (dict(panel) for panel in panels(boards["gatewatch-learning"]) if panel["title"] == "Loss")
        broken = {**boards["gatewatch-learning"], "panels": [loss]}
        broken["panels"][0]["targets"] = [{"query": "from(bucket: v.defaultBucket) |> nonsense()", "refId": "A"}]
        (row,) = [row for row in check([broken], source, now=now) if row.panel == "Loss"]
        assert "undefined identifier nonsense" in row.problem

    def test_titles_of_gates_are_those_of_the_report(self):
        four = ("Input Signal Flow", "Forget Gate Activation", "Cell State Evolution", "Output Gate Response")
        assert tuple(TITLES[gate] for gate in ("input", "forget", "cell", "output")) == four
