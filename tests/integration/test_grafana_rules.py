"""Every rule of Grafana's against a real InfluxDB, evaluated minute by minute as Grafana does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from gatewatch.collector.schema import Point
from gatewatch.jobs.alerts.evaluator import units_by_layer, units_of
from gatewatch.jobs.alerts.rules import BUILT_IN
from grafana.emulator.frames import FluxSource
from grafana.source.rules import grafana_rule
from grafana.source.rules_flux import MOST_SERIES
from tests.grafana_alerts import Evaluator
from tests.seeded import COLLAPSED, DIED, HOSTILE, HOSTILE_LAYER, seed

BEGUN = 1_790_000_000 // 60 * 60
"""Seconds; all points are of a time that is long over, or not yet come."""
RUN = {"run": "r", "phase": "train"}
OTHER = {"run": "other", "phase": "train"}
GATE = {**RUN, "layer": "memory", "gate": "forget"}
PARAM = {**RUN, "layer": "memory", "param": "kernel"}
HIDDEN = {**RUN, "layer": "memory", "gate": "hidden"}
RULES = {rule.name: rule for rule in BUILT_IN}
CONFIG = json.dumps({"layers": {"memory": {"type": "LSTM", "units": 8}}})
Make = Callable[[float, int], list[Point]]


def at(seconds):
    return (BEGUN + seconds) * 10**9


def point(measurement, tags, seconds, **fields):
    return Point(measurement, tags, fields, at(seconds))


def field(measurement, tags, name):
    """Points of one field."""
    return lambda value, seconds: [point(measurement, tags, seconds, **{name: value})]


def frozen(value, seconds):
    dense = {**PARAM, "layer": "dense"}
    norms = ((PARAM, value), ({**PARAM, "param": "bias"}, 0.0), (dense, 1e-3))
    return [point("layer_updates", tags, seconds, update_norm=norm) for tags, norm in norms]


def dead(value, seconds):
    started = point("runs", RUN, -60, event="started", config=CONFIG, step=0)
    return [started, point("gate_stats", HIDDEN, seconds, dead_units=int(value))]


@dataclass(frozen=True)
class Case:
    """What a rule about values must tell apart.

    Attributes:
        make: gives the points of a value at a time.
        usual, quiet, fires: healthy; at the threshold; just beyond.
        held: short of the way back; None where there is no such way.
        over: past it.
    """

    make: Make
    usual: float
    quiet: float
    fires: float
    held: float | None
    over: float


CASES = {
    "anomaly": Case(
        field("gate_scores", {**GATE, "detector": "consensus"}, "anomaly_score"), 0.5, 1.0, 1.001, None, 0.9
    ),
    "check_failed": Case(
        field("gate_scores", {**GATE, "detector": "checks"}, "anomaly_score"), 0.0, 1.0, 2.0, None, 0.0
    ),
    "data_changed": Case(field("gate_scores", {**GATE, "detector": "data"}, "anomaly_score"), 0.5, 1.0, 1.1, None, 0.9),
    "gate_not_finite": Case(lambda v, s: [point("gate_stats", GATE, s, nan_count=int(v))], 0, 0, 1, None, 0),
    "update_not_finite": Case(lambda v, s: [point("layer_updates", PARAM, s, inf_count=int(v))], 0, 0, 1, None, 0),
    "forget_gate_shut": Case(field("gate_stats", GATE, "mean"), 0.7, 0.05, 0.0499, 0.06, 0.081),
    "forget_gate_open": Case(field("gate_stats", GATE, "mean"), 0.7, 0.995, 0.9951, 0.993, 0.9899),
    "gradient_vanishing": Case(field("layer_updates", PARAM, "gradient_norm"), 1.0, 1e-7, 9.9e-8, 5e-7, 1.01e-6),
    "gradient_exploding": Case(field("layer_updates", PARAM, "gradient_norm"), 1.0, 100.0, 100.1, 21.0, 19.0),
    "layer_frozen": Case(frozen, 1e-3, 1e-12, 9.9e-13, None, 1.01e-12),
    "units_dead": Case(dead, 0, 4, 5, 4, 3),
    "generalisation_gap": Case(
        field("gate_derived", {**RUN, "layer": "_model", "gate": "loss"}, "generalisation_gap"),
        0.1,
        0.5,
        0.501,
        0.45,
        0.399,
    ),
    "jobs_late": Case(field("jobs_health", {"job": "score"}, "lag_s"), 5.0, 300.0, 300.1, 61.0, 59.0),
}
LABELS = ("run", "phase", "layer", "gate", "param", "job")


@pytest.fixture
def stage(influxd):
    """A bucket, and rules that are evaluated over it."""
    return Stage(influxd)


class Stage:
    def __init__(self, influxd):
        self.influxd, self.bucket = influxd, influxd.bucket()
        self.store = influxd.store(self.bucket)
        self.source = FluxSource(influxd.url, org=influxd.org, bucket=self.bucket, token=influxd.token)

    def write(self, points):
        self.store.write(points)

    def rule(self, name, **more):
        return Evaluator(grafana_rule(RULES[name], lambda uid, title: 1), self.source, **more)

    def lasting(self, make, value, first, last):
        """Points of a value, twice a minute, over these minutes."""
        self.write([one for s in range(first * 60 + 10, last * 60, 30) for one in make(value, s)])


LIVE = tuple(sorted(RUN.items()))


def named(alerting):
    """Series by the values of their labels, in the usual order."""
    return {tuple(dict(labels)[name] for name in LABELS if name in dict(labels)) for labels in alerting}


def when(minutes):
    return BEGUN + minutes * 60


class TestValues:
    """Rules that compare a value: just below, just above, on the way back, and when the series is gone."""

    def test_every_rule_about_values_is_here(self):
        others = {r.name for r in BUILT_IN if r.about_silence or r.quantity.measure in ("rise", "growth", "last_event")}
        assert set(CASES) | others == {rule.name for rule in BUILT_IN}

    @pytest.mark.parametrize("name", CASES)
    def test_at_the_threshold_it_is_quiet(self, stage, name):
        case = CASES[name]
        stage.lasting(case.make, case.usual, 0, 20)
        stage.lasting(case.make, case.quiet, 20, 30)
        rule = stage.rule(name)
        assert rule.until(when(10), when(30)) == set()
        assert rule.states, "the series was seen"
        assert rule.mailed == []

    @pytest.mark.parametrize("name", CASES)
    def test_just_beyond_it_fires_and_over_it_is_past_the_way_back(self, stage, name):
        case = CASES[name]
        stage.lasting(case.make, case.usual, 0, 20)
        stage.lasting(case.make, case.fires, 20, 26)
        stage.lasting(case.make, case.over if case.held is None else case.held, 26, 33)
        stage.lasting(case.make, case.over, 33, 45)
        rule = stage.rule(name)
        assert rule.until(when(10), when(20)) == set()
        (labels,) = rule.until(when(21), when(26))
        rule.until(when(27), when(33))
        assert rule.alerting == ({labels} if case.held is not None else set())
        assert rule.until(when(34), when(45)) == set()
        assert [kind for _, kind, _ in rule.mailed] == ["firing", "resolved"]
        assert {name for name, _ in labels} <= {*LABELS, "severity"}

    @pytest.mark.parametrize("name", CASES)
    def test_a_run_that_ends_while_it_fires_fires_until_its_data_leave_the_time_range(self, stage, name):
        """Its captures leave one by one: that is no recovery."""
        case = CASES[name]
        stage.lasting(case.make, case.usual, 0, 20)
        stage.lasting(case.make, case.fires, 20, 30)
        rule = stage.rule(name)
        (labels,) = rule.until(when(10), when(30))
        gone = when(30 + RULES[name].grafana.lookback_seconds // 60)
        assert rule.until(when(31), gone - 60) == {labels}
        assert rule.until(gone, gone + 300) == set()
        (_, *told), (moment, *ended) = rule.mailed
        assert (told, ended) == (["firing", labels], ["no data", labels])
        assert moment == gone


class TestSeverity:
    """That of a check that failed: critical where no sound training violates it."""

    def test_it_is_a_label_of_the_series(self, stage):
        checks = {**GATE, "detector": "checks"}
        of_check = {"moments_fell": {**checks, "gate": "kernel"}, "order_lost": {**checks, "layer": "_data"}}
        for name, tags in of_check.items():
            stage.lasting(lambda v, s, t=tags: [point("gate_scores", t, s, anomaly_score=v)], 0.0, 0, 20)
            more = {f"why_{name}": 2.0, "why_stands_still": 0.0}
            failed = lambda v, s, t=tags, m=more: [point("gate_scores", t, s, anomaly_score=v, **m)]  # noqa: E731
            stage.lasting(failed, 2.0, 20, 22)
            stage.lasting(lambda v, s, t=tags: [point("gate_scores", t, s, anomaly_score=v)], 0.0, 22, 40)
        rule = stage.rule("check_failed")
        found = {dict(labels)["layer"]: dict(labels)["severity"] for labels in rule.until(when(10), when(22))}
        assert found == {"memory": "critical", "_data": "warning"}
        assert rule.until(when(23), when(40)) == set()
        assert {kind for _, kind, _ in rule.mailed} == {"firing", "resolved"}
        assert len(rule.mailed) == 4


class TestWhatIsNoFault:
    """As the mails have it."""

    def test_one_anomalous_capture_is_none_and_several_are(self, stage):
        case, rule = CASES["anomaly"], stage.rule("anomaly")
        stage.lasting(case.make, 0.5, 0, 30)
        stage.write(case.make(3.0, 20 * 60 + 10))
        assert rule.until(when(10), when(22)) == set()
        stage.lasting(case.make, 3.0, 22, 24)
        assert len(rule.until(when(23), when(24))) == 1

    @pytest.mark.parametrize("name", ["anomaly", "forget_gate_shut"])
    def test_a_training_of_a_minute_is_told_of(self, stage, name):
        """It captures every second, ends in the middle of its fault, and writes no more."""
        case, rule = CASES[name], stage.rule(name)
        stage.write([one for s in range(600, 630) for one in case.make(case.usual, s)])
        stage.write([one for s in range(630, 660) for one in case.make(case.fires, s)])
        assert len(rule.until(when(10), when(14))) == 1

    def test_a_run_that_ends_beside_one_that_goes_on(self, stage):
        """Its series is missing twice before Grafana gives it up; so the mail comes a minute later."""
        case, rule = CASES["forget_gate_shut"], stage.rule("forget_gate_shut")
        stage.lasting(field("gate_stats", {**GATE, **OTHER}, "mean"), 0.7, 0, 50)
        stage.lasting(case.make, 0.7, 0, 20)
        stage.lasting(case.make, 0.01, 20, 30)
        rule.until(when(10), when(50))
        assert [(moment, kind) for moment, kind, _ in rule.mailed] == [(when(22), "firing"), (when(46), "no data")]

    def test_a_fault_that_was_over_before_the_run_ended_is_resolved(self, stage):
        case, rule = CASES["forget_gate_shut"], stage.rule("forget_gate_shut")
        stage.lasting(case.make, 0.7, 0, 20)
        stage.lasting(case.make, 0.01, 20, 28)
        stage.lasting(case.make, 0.7, 28, 30)
        rule.until(when(10), when(50))
        assert [kind for _, kind, _ in rule.mailed] == ["firing", "resolved"]

    def test_another_detectors_score_is_none(self, stage):
        stage.lasting(field("gate_scores", {**GATE, "detector": "rules"}, "anomaly_score"), 3.0, 0, 10)
        rule = stage.rule("anomaly")
        assert rule.until(when(5), when(10)) == set()

    @pytest.mark.parametrize(("name", "value"), [("forget_gate_shut", 0.01), ("forget_gate_open", 0.999)])
    def test_a_gate_that_was_never_within_bounds_is_not_collapsed(self, stage, name, value):
        stage.lasting(CASES[name].make, value, 0, 20)
        rule = stage.rule(name)
        assert rule.until(when(5), when(20)) == set()
        assert rule.mailed == []

    def test_a_gate_that_is_let_be_for_hours_stays_told_of(self, stage):
        case, rule = CASES["forget_gate_shut"], stage.rule("forget_gate_shut", interval=300)
        stage.lasting(case.make, 0.7, 0, 5)
        stage.lasting(case.make, 0.01, 5, 6 * 60 + 20)
        assert named(rule.until(when(5), when(6 * 60 + 20))) == {("r", "train", "memory", "forget")}
        assert [kind for _, kind, _ in rule.mailed] == ["firing"]

    def test_a_gate_that_began_shut_and_was_healthy_is_told_of_for_hours_at_most(self, stage):
        """What it was in between is forgotten in time; that is one end, not one an hour."""
        case, rule = CASES["forget_gate_shut"], stage.rule("forget_gate_shut", interval=300)
        stage.lasting(case.make, 0.01, 0, 1)
        stage.lasting(case.make, 0.7, 1, 5)
        stage.lasting(case.make, 0.01, 5, 6 * 60 + 20)
        rule.until(when(5), when(6 * 60 + 20))
        assert [kind for _, kind, _ in rule.mailed] == ["firing", "resolved"]

    def test_an_input_gate_may_shut(self, stage):
        make = field("gate_stats", {**GATE, "gate": "input"}, "mean")
        stage.lasting(make, 0.7, 0, 10)
        stage.lasting(make, 0.01, 10, 20)
        assert stage.rule("forget_gate_shut").until(when(5), when(20)) == set()

    def test_gradients_before_anything_is_usual_do_not_explode(self, stage):
        make = CASES["gradient_exploding"].make
        stage.lasting(make, 1.0, 0, 3)
        stage.lasting(make, 500.0, 3, 4)
        assert stage.rule("gradient_exploding").until(when(1), when(6)) == set()

    def test_a_gradient_that_stays_large_stays_an_explosion_until_it_is_usual(self, stage):
        make, rule = CASES["gradient_exploding"].make, stage.rule("gradient_exploding")
        stage.lasting(make, 1.0, 0, 20)
        stage.lasting(make, 500.0, 20, 30)
        rule.until(when(10), when(30))
        assert [kind for _, kind, _ in rule.mailed] == ["firing"]

    def test_layers_that_all_stand_still_are_at_a_learning_rate_of_zero(self, stage):
        tags = (PARAM, {**PARAM, "layer": "dense"})
        stage.lasting(lambda v, s: [point("layer_updates", one, s, update_norm=v) for one in tags], 0.0, 0, 10)
        rule = stage.rule("layer_frozen")
        assert rule.until(when(5), when(10)) == set()

    def test_a_layer_of_another_run_moves_for_itself_alone(self, stage):
        stage.lasting(field("layer_updates", PARAM, "update_norm"), 0.0, 0, 10)
        stage.lasting(field("layer_updates", {**PARAM, **OTHER}, "update_norm"), 1e-3, 0, 10)
        assert stage.rule("layer_frozen").until(when(5), when(10)) == set()

    def test_a_layer_of_unknown_size_has_no_share_of_dead_units(self, stage):
        stage.lasting(dead, 8, 0, 10)
        stage.lasting(field("gate_stats", {**HIDDEN, "layer": "own"}, "dead_units"), 100, 0, 10)
        rule = stage.rule("units_dead")
        assert named(rule.until(when(5), when(10))) == {("r", "train", "memory", "hidden")}


class TestSizes:
    """What a run tells of its layers, as `gatewatch.jobs.alerts.evaluator.units_of` reads it."""

    @pytest.mark.parametrize(
        ("told", "layer", "units"),
        [
            ({"memory": {"type": "LSTM", "units": 8}}, "memory", 8),
            ({"memory": {"input_size": 3, "hidden_size": 16, "proj_size": 0}}, "memory/l0", 16),
            ({"memory": {"input_size": 3, "hidden_size": 16, "proj_size": 4}}, "memory/l1_reverse", 4),
            ({"a": {"units": 4}, "a/b": {"units": 32}}, "a/b", 32),
            ({HOSTILE_LAYER: {"type": "LSTM", "units": 8}}, HOSTILE_LAYER, 8),
            ({"memory": {"type": "RNN", "units": None}, "next": {"units": 8}}, "memory", None),
            ({"other": {"units": 8}}, "memory", None),
            ({}, "memory", None),
        ],
    )
    def test_it_is_found(self, stage, told, layer, units):
        config = json.dumps({"layers": told, "tags": {}})
        stage.write([point("runs", RUN, 0, event="started", config=config)])
        tags = {**HIDDEN, "layer": layer}
        assert units is None or units_of(layer, units_by_layer(json.loads(config))) == units
        stage.lasting(field("gate_stats", tags, "dead_units"), 3, 0, 10)
        rule = stage.rule("units_dead")
        rule.evaluate(when(10))
        assert [state.value for labels, state in rule.states.items() if labels] == (
            [] if units is None else [3 / units]
        )


class TestCounters:
    """Rules about counters of the collector and of the jobs."""

    @pytest.mark.parametrize("name", ["points_dropped", "points_rejected", "captures_failing"])
    def test_a_rise_fires_until_ten_points_without_one(self, stage, name):
        make = field("collector_health", RUN, RULES[name].quantity.field)
        stage.lasting(make, 3, 0, 20)
        stage.lasting(make, 4, 20, 40)
        rule = stage.rule(name)
        assert rule.until(when(12), when(20)) == set()
        assert rule.until(when(21), when(25)) == {LIVE}
        assert rule.until(when(26), when(40)) == set()

    @pytest.mark.parametrize("name", ["points_dropped", "points_rejected", "captures_failing"])
    def test_what_was_there_when_a_run_began_has_risen(self, stage, name):
        make = field("collector_health", RUN, RULES[name].quantity.field)
        stage.lasting(make, 7, 0, 20)
        rule = stage.rule(name)
        assert rule.until(when(1), when(5)) == {LIVE}
        assert rule.states[LIVE].value == 7
        assert rule.until(when(6), when(20)) == set()

    def test_what_a_run_has_long_told_has_not_risen_when_its_end_is_all_that_is_seen(self, stage):
        stage.lasting(field("collector_health", RUN, "dropped"), 5, 0, 30)
        rule = stage.rule("points_dropped")
        assert rule.until(when(12), when(95)) == set()
        assert [kind for _, kind, _ in rule.mailed] == []

    def test_a_counter_that_never_moves_is_quiet(self, stage):
        stage.lasting(field("collector_health", RUN, "dropped"), 0, 0, 30)
        rule = stage.rule("points_dropped")
        assert rule.until(when(1), when(30)) == set()
        assert rule.states[LIVE].value == 0

    @pytest.mark.parametrize(("grown", "fires"), [(65536, False), (65537, True)])
    def test_a_spool_that_grows_for_five_heartbeats(self, stage, grown, fires):
        make = field("collector_health", RUN, "spooled_bytes")
        stage.write([one for k in range(40) for one in make(1000 + grown * min(max(0, k - 10), 6), 30 * k + 10)])
        rule = stage.rule("spool_growing")
        assert rule.until(when(3), when(7)) == set()
        assert (rule.until(when(8), when(8)) == {LIVE}) is fires
        assert rule.until(when(12), when(20)) == set()

    @pytest.mark.parametrize(("name", "failing", "quiet"), [("jobs_failing", 3, 2), ("jobs_missed", 5, 4)])
    def test_a_job_that_fails_again_and_again(self, stage, name, failing, quiet):
        job = {"job": "score"}

        def stairs(first, steps):
            for minute in range(20):
                value = first + min(max(0, minute - 4), steps)
                yield from field("jobs_health", job, RULES[name].quantity.field)(value, 60 * minute + 10)

        stage.write(stairs(5, quiet))
        rule = stage.rule(name)
        assert rule.until(when(3), when(20)) == set()
        stage.write(stairs(5, failing))
        rule = stage.rule(name)
        assert rule.until(when(3), when(5 + failing + 1)) == {(("job", "score"),)}
        assert rule.until(when(5 + failing + 2), when(20)) == set()

    def test_a_service_that_begins_anew_has_not_failed(self, stage):
        make = field("jobs_health", {"job": "score"}, "failures")
        for minute in range(20):
            stage.lasting(make, 9 if minute % 4 else 0, minute, minute + 1)
        assert stage.rule("jobs_failing").until(when(3), when(20)) == set()


class TestSilence:
    """Rules about who is not heard of."""

    def lives(self, stage, minutes, tags=RUN, end=None):
        """A run that says each half minute that it lives, and captures."""
        beats = [("started", 0), *(("heartbeat", s) for s in range(30, minutes * 60, 30))]
        stage.write([point("runs", tags, s, event=event, step=s) for event, s in beats])
        stage.write([point("collector_health", tags, s, captured=s // 10) for _, s in beats])
        if end:
            stage.write([point("runs", tags, minutes * 60, event=end, step=1)])

    def test_a_run_that_falls_silent_has_died(self, stage):
        self.lives(stage, 10)
        self.lives(stage, 20, OTHER)
        rule = stage.rule("run_died")
        assert rule.until(when(1), when(12)) == set(), "two minutes are four heartbeats"
        assert rule.until(when(13), when(13)) == {LIVE}

    def test_it_is_over_when_it_is_heard_of_again(self, stage):
        self.lives(stage, 10)
        rule = stage.rule("run_died")
        assert rule.until(when(1), when(20)) == {LIVE}
        stage.write([point("runs", RUN, 20 * 60 + 5, event="heartbeat", step=9)])
        assert rule.until(when(21), when(21)) == set()

    @pytest.mark.parametrize("end", ["completed", "failed", "interrupted"])
    def test_one_that_has_said_its_end_has_not(self, stage, end):
        self.lives(stage, 10, end=end)
        rule = stage.rule("run_died")
        assert rule.until(when(1), when(40)) == set()
        assert rule.mailed == []

    def test_a_dead_run_is_told_of_though_all_its_series_are_gone(self, stage):
        """What else fired is over with its series; the death is not, for a day."""
        self.lives(stage, 30)
        stage.lasting(CASES["forget_gate_shut"].make, 0.7, 0, 20)
        stage.lasting(CASES["forget_gate_shut"].make, 0.01, 20, 30)
        shut, died = stage.rule("forget_gate_shut"), stage.rule("run_died")
        for evaluated in (shut, died):
            evaluated.until(when(20), when(30))
        assert (named(shut.alerting), died.alerting) == ({("r", "train", "memory", "forget")}, set())
        for evaluated in (shut, died):
            evaluated.until(when(31), when(50))
        assert (shut.alerting, died.alerting) == (set(), {LIVE})
        died.until(when(24 * 60 - 5), when(24 * 60 + 20))
        assert died.until(when(24 * 60 + 40), when(24 * 60 + 45)) == set()

    def test_the_phases_of_a_run_live_for_themselves(self, stage):
        self.lives(stage, 10, {**RUN, "phase": "validation"}, end="completed")
        self.lives(stage, 10)
        assert stage.rule("run_died").until(when(9), when(14)) == {LIVE}

    @pytest.mark.parametrize(("until", "fires"), [(15, False), (17, True)])
    def test_a_run_that_lives_and_captures_nothing(self, stage, until, fires):
        """Ten times its usual spacing of ten seconds, which counts as thirty, since the tenth minute."""
        self.lives(stage, 10)
        stage.write([point("collector_health", RUN, s, captured=59) for s in range(600, 1500, 30)])
        rule = stage.rule("captures_stalled")
        assert (rule.until(when(2), when(until)) == {LIVE}) is fires
        stage.write([point("collector_health", RUN, until * 60 + 10, captured=60)])
        assert rule.until(when(until + 1), when(until + 2)) == set()

    def test_captures_that_are_rare_are_waited_for(self, stage):
        counts = [(s, s // 240) for s in range(0, 3600, 30)]
        stage.write([point("collector_health", RUN, s, captured=count) for s, count in counts])
        stage.write([point("collector_health", RUN, s, captured=14) for s in range(3600, 3600 + 3000, 30)])
        rule = stage.rule("captures_stalled")
        assert rule.until(when(40), when(95)) == set()
        assert rule.until(when(96), when(105)) == {LIVE}

    def test_a_dead_or_ended_run_does_not_stall_as_well(self, stage):
        self.lives(stage, 10)
        rule = stage.rule("captures_stalled")
        assert rule.until(when(2), when(40)) == set()
        assert rule.mailed == []

    def scored(self, stage, minutes, scored, captures=40, **fields):
        """A run that captures once a minute, of which so many minutes have scores."""
        stage.write([point("collector_health", RUN, s, captured=captures) for s in range(0, minutes * 60, 30)])
        stats = {"mean": 0.7, "nan_count": 0, **fields}
        stage.write([point("gate_stats", GATE, 60 * m + 1, **stats) for m in range(minutes)])
        consensus = {**GATE, "detector": "consensus"}
        stage.write([point("gate_scores", consensus, 60 * m + 1, anomaly_score=0.5) for m in range(scored)])

    def test_captures_that_get_no_scores(self, stage):
        self.scored(stage, 30, scored=20)
        rule = stage.rule("scores_stale")
        assert rule.until(when(5), when(25)) == set()
        assert rule.until(when(26), when(29)) == {LIVE}
        self.scored(stage, 32, scored=31)
        assert rule.until(when(30), when(31)) == set()

    def test_captures_that_never_got_one(self, stage):
        self.scored(stage, 30, scored=0)
        assert stage.rule("scores_stale").until(when(5), when(10)) == {LIVE}

    @pytest.mark.parametrize("about", [{"captures": 32}, {"nan_count": 3}])
    def test_captures_that_need_none(self, stage, about):
        self.scored(stage, 30, scored=0, **about)
        assert stage.rule("scores_stale").until(when(5), when(29)) == set()

    def test_what_a_run_left_behind_is_not_waited_for(self, stage):
        self.scored(stage, 20, scored=10)
        rule = stage.rule("scores_stale")
        rule.until(when(15), when(19))
        assert rule.until(when(20), when(30)) == set()


class TestJobs:
    """Rules about the jobs, and about who writes at all."""

    def turns(self, stage, minutes, ends=lambda minute: minute):
        """Points of a job each minute, of which a turn has ended where `duration_s` changes."""
        stage.write(
            [point("jobs_health", {"job": "score"}, 60 * m + 5, duration_s=1.0 + ends(m)) for m in range(minutes)]
        )

    JOB = (("job", "score"),)

    def test_a_turn_that_does_not_end(self, stage):
        self.turns(stage, 60, lambda minute: min(minute, 20))
        rule = stage.rule("jobs_stuck")
        assert rule.until(when(10), when(30)) == set()
        assert rule.until(when(31), when(33)) == {self.JOB}
        self.turns(stage, 62, lambda minute: minute)
        assert rule.until(when(61), when(62)) == set()

    def test_turns_that_are_long_by_habit_are_waited_for(self, stage):
        self.turns(stage, 100, lambda minute: min(minute, 60) // 5)
        rule = stage.rule("jobs_stuck")
        assert rule.until(when(30), when(99)) == set()

    def test_a_job_that_is_configured_away_is_not_stuck(self, stage):
        self.turns(stage, 20)
        stage.write([point("jobs_health", {"job": "alerts"}, 60 * m, duration_s=float(m)) for m in range(60)])
        assert stage.rule("jobs_stuck").until(when(10), when(59)) == set()

    def test_jobs_that_are_gone(self, stage):
        self.turns(stage, 20)
        rule = stage.rule("jobs_silent")
        assert rule.until(when(5), when(24)) == set()
        assert rule.until(when(25), when(26)) == {()}
        stage.write([point("jobs_health", {"job": "score"}, 27 * 60, duration_s=1.0)])
        assert rule.until(when(28), when(28)) == set()

    def test_jobs_that_never_were_are_not_missed_by_their_own_rule(self, stage):
        rule = stage.rule("jobs_silent")
        assert rule.until(when(0), when(20)) == set()
        assert rule.states[()].state == "Normal"

    def test_nothing_at_all(self, stage):
        self.turns(stage, 20)
        stage.write([point("runs", RUN, s, event="heartbeat") for s in range(1200, 1800, 30)])
        stage.write([point("collector_health", RUN, 1800, captured=1)])
        rule = stage.rule("nothing_written")
        assert rule.until(when(5), when(45)) == set()
        assert rule.until(when(46), when(47)) == {()}
        stage.write([point("jobs_health", {"job": "score"}, 47 * 60 + 1, duration_s=1.0)])
        assert rule.until(when(48), when(48)) == set()

    def test_nothing_in_an_empty_bucket_is_told_once_somebody_has_had_the_time_to_write(self, stage):
        rule = stage.rule("nothing_written")
        assert rule.until(when(0), when(4)) == set()
        assert rule.until(when(5), when(6)) == {()}


class TestStore:
    """The store itself."""

    def test_a_store_that_is_away_is_told_after_five_minutes_and_by_one_rule(self, own_influxd):
        stage = Stage(own_influxd)
        away, shut = stage.rule("store_away"), stage.rule("forget_gate_shut")
        assert away.until(when(0), when(5)) == set()
        own_influxd.stop()
        assert away.until(when(6), when(10)) == set()
        assert shut.until(when(6), when(10)) == set()
        assert shut.states[()].state == "Error"
        assert away.until(when(11), when(11)) == {()}
        own_influxd.start()
        assert away.until(when(12), when(12)) == set()
        shut.evaluate(when(12))
        assert {state.state for state in shut.states.values()} == {"Normal"}

    def test_a_bucket_that_is_gone_is_a_store_that_is_away(self, influxd):
        stage = Stage(influxd)
        stage.source.bucket = "another"
        assert stage.rule("store_away").until(when(0), when(5)) == {()}


class TestEveryRule:
    """What holds for all of them."""

    @pytest.mark.parametrize("name", RULES)
    def test_an_empty_bucket_alerts_only_of_itself(self, stage, name):
        rule = stage.rule(name)
        alerting = rule.until(when(0), when(10))
        assert alerting == ({()} if name == "nothing_written" else set())
        assert set(rule.states) == {()}

    @pytest.mark.parametrize("name", [*CASES])
    def test_whatever_names_say_they_are_names(self, stage, name):
        case = CASES[name]

        def hostile(value, seconds):
            made = case.make(value, seconds)
            if name == "units_dead":
                config = json.dumps({"layers": {HOSTILE_LAYER: {"units": 8}}})
                made = [
                    replace(one, fields={**one.fields, "config": config}) if "event" in one.fields else one
                    for one in made
                ]
            renamed = {"run": HOSTILE, "layer": HOSTILE_LAYER, "job": HOSTILE}
            kept = ("dense", "_model")
            return [
                replace(one, tags={k: v if v in kept else renamed.get(k, v) for k, v in one.tags.items()})
                for one in made
            ]

        stage.lasting(hostile, case.usual, 0, 20)
        stage.lasting(hostile, case.fires, 20, 30)
        (labels,) = stage.rule(name).until(when(19), when(30))
        assert HOSTILE in dict(labels).values()

    def test_a_users_own_tags_neither_split_nor_hide_a_series(self, stage):
        stage.lasting(field("gate_stats", {**GATE, "symbol": "GOOG"}, "mean"), 0.7, 0, 20)
        stage.lasting(field("gate_stats", {**GATE, "symbol": "BTC", "state": "x"}, "mean"), 0.01, 20, 30)
        assert named(stage.rule("forget_gate_shut").until(when(10), when(30))) == {("r", "train", "memory", "forget")}

    def test_of_more_series_than_grafana_takes_the_worst_are_compared(self, stage):
        """500 runs of three gates each, one of which is anomalous."""
        gates = [(f"run-{run:03d}", gate) for run in range(500) for gate in ("forget", "input", "output")]
        stage.write(
            point(
                "gate_scores", {**GATE, "run": run, "gate": gate, "detector": "consensus"}, 60 * m + 5, anomaly_score=s
            )
            for m in range(4)
            for run, gate in gates
            for s in [1.5 if (run, gate) == ("run-250", "input") else 0.5]
        )
        rule = stage.rule("anomaly")
        assert named(rule.until(when(3), when(4))) == {("run-250", "train", "memory", "input")}
        assert len(rule.states) == MOST_SERIES

    def test_500_runs_that_die_at_once(self, stage):
        stage.write(point("runs", {"run": f"run-{k}", "phase": "train"}, k % 60, event="heartbeat") for k in range(500))
        assert len(stage.rule("run_died").until(when(1), when(5))) == 500

    @pytest.mark.parametrize("name", RULES)
    def test_on_runs_as_they_are(self, lived_in, name):
        """A run that collapsed, one that died, one of hostile names, and jobs that work."""
        rule = lived_in.rule(name)
        now = lived_in.now
        rule.until(now - 180, now)
        expected = {
            "anomaly": {(COLLAPSED, "train", "lstm_0", "forget")},
            "forget_gate_shut": {(COLLAPSED, "train", "lstm_0", "forget")},
            "generalisation_gap": {(COLLAPSED, "train")},
            "run_died": {(DIED, "train")},
        }
        assert named(rule.alerting) == expected.get(name, set())


@pytest.fixture(scope="module")
def lived_in(influxd):
    """A store as it is in use."""
    stage = Stage(influxd)
    stage.now = BEGUN
    seed(stage.store, BEGUN * 10**9)
    return stage
