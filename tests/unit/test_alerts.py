"""What fires, since when, how bad and why; and how often it is told. No mail server is needed here."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch.collector.config import AlertRuleSettings, AlertSettings, Settings
from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.alerts import BUILT_IN, AlertManager, Rule, evaluate
from gatewatch.jobs.alerts.lifecycle import Alert, advance, due, end_with_runs
from gatewatch.jobs.alerts.rule import Condition, Quantity
from gatewatch.jobs.alerts.rules import active_rules
from gatewatch.jobs.alerts.series_state import Firing, RuleValues, SeriesState, update_series
from gatewatch.jobs.findings.explanations import BROKEN, in_words
from gatewatch.jobs.scoring.detectors.rules import PHRASES as RULES
from gatewatch.jobs.scoring.signals import PHRASES, SIGNALS

S = 10**9
BEGUN = 1_790_000_000 * S
RUN = {"run": "r", "phase": "train"}
GATE = {**RUN, "layer": "memory", "gate": "forget"}
HIDDEN = {**RUN, "layer": "memory", "gate": "hidden"}
PARAM = {**RUN, "layer": "memory", "param": "kernel"}
SCORE = {**GATE, "detector": "consensus"}
RUNBOOK = (Path(__file__).parents[2] / "docs/runbook.md").read_text()


def series(measurement, tags, every=1.0, **fields):
    """Points a capture apart, whose fields are sequences, or numbers for all of them."""
    count = max(len(values) for values in fields.values() if isinstance(values, list))
    columns = {name: values if isinstance(values, list) else [values] * count for name, values in fields.items()}
    return [
        Point(measurement, tags, {"step": k, **{name: column[k] for name, column in columns.items()}}, at(k * every))
        for k in range(count)
    ]


def at(seconds):
    return BEGUN + int(seconds * S)


def lived(until, tags=RUN, **about):
    """What a run tells of itself: its start, and a heartbeat each half minute."""
    config = json.dumps({"layers": {"memory": {"units": 8}}} | about)
    beats = [Point("runs", tags, {"event": "heartbeat", "step": k}, at(30 * k)) for k in range(1, int(until / 30) + 1)]
    return [Point("runs", tags, {"event": "started", "config": config, "step": 0}, at(0)), *beats]


class Watch:
    """Alerting as the service does it, on a store in a folder, by a clock that the test sets."""

    def __init__(self, folder, **alerts):
        self.folder = folder
        self.store = open_store(f"sqlite:///{folder / 'gatewatch.db'}")
        self.settings = Settings(alerts=AlertSettings(**alerts))
        self.outcome = None

    def sees(self, points=(), seconds=0.0):
        """The rules that fire now, by what the state holds, and those whose end was told in the meantime."""
        self.store.write(points)
        self.outcome = evaluate(self.store, self.settings, self.folder, at(seconds))
        return self.firing

    @property
    def firing(self):
        state = json.loads((self.folder / "alerts/alerts.json").read_bytes())
        return {entry["rule"] for entry in state["entries"].values() if entry["firing"]["until"] is None}

    def events(self, rule=None):
        frame = self.store.read("alert_events", tags={"rule": rule} if rule else None)
        return [(row["rule"], row["state"]) for row in frame.to_dict("records")]


@pytest.fixture
def watch(tmp_path):
    return Watch(tmp_path)


LEVEL = [0.7] * 20
FAULTS = {
    "anomaly": series("gate_scores", SCORE, anomaly_score=[0.5] * 20 + [1.2, 0.9, 1.3]),
    "gate_not_finite": series("gate_stats", GATE, nan_count=[0] * 20, inf_count=[0] * 19 + [1]),
    "update_not_finite": series("layer_updates", PARAM, nan_count=[0] * 19 + [2], gradient_norm=1.0),
    "forget_gate_shut": series("gate_stats", GATE, mean=[*LEVEL, 0.04, 0.03, 0.02], nan_count=0),
    "forget_gate_open": series("gate_stats", GATE | {"gate": "update"}, mean=[*LEVEL, 0.996, 0.999, 0.9999]),
    "gradient_vanishing": series("layer_updates", PARAM, gradient_norm=[1.0] * 10 + [1e-8] * 3),
    "gradient_exploding": series("layer_updates", PARAM, gradient_norm=[1.0] * 10 + [101.0]),
    "layer_frozen": [
        *series("layer_updates", PARAM, update_norm=[1e-3] * 5 + [0.0] * 3),
        *series("layer_updates", PARAM | {"param": "bias"}, update_norm=[1e-3] * 5 + [0.0] * 3),
        *series("layer_updates", PARAM | {"layer": "dense"}, update_norm=[1e-3] * 8),
    ],
    "units_dead": series("gate_stats", HIDDEN, dead_units=[0, 4, 5, 5, 5]),
    "generalisation_gap": series("gate_derived", RUN | {"layer": "_model"}, generalisation_gap=[0.1, 0.6, 0.7]),
    "points_dropped": series("collector_health", RUN, dropped=[0] * 5 + [7]),
    "points_rejected": series("collector_health", RUN, rejected=[0] * 5 + [1]),
    "captures_failing": series("collector_health", RUN, failures=[0] * 5 + [1]),
    "spool_growing": series("collector_health", RUN, 30, spooled_bytes=[k * 100_000 for k in range(6)]),
    "jobs_late": series("jobs_health", {"job": "score"}, 60, lag_s=[1.0, 400.0, 460.0, 520.0], duration_s=1.0),
    "jobs_failing": series("jobs_health", {"job": "score"}, 60, failures=[0, 1, 2, 3], duration_s=1.0),
    "jobs_missed": series("jobs_health", {"job": "score"}, 60, missed=[0, 1, 2, 3, 4, 5], duration_s=1.0),
    "check_failed": [
        *series("gate_scores", SCORE | {"detector": "checks"}, anomaly_score=[0.0] * 20 + [2.0] * 3),
        *series("gate_scores", SCORE, anomaly_score=[0.5] * 20 + [2.0] * 3),  # the consensus holds it too
    ],
    "data_changed": series("gate_scores", SCORE | {"detector": "data"}, anomaly_score=[0.1] * 20 + [1.2, 1.3]),
}
HEALTHY = {
    "a gate that was never within bounds": series("gate_stats", GATE, mean=[0.999] * 20),
    "one anomalous capture": series("gate_scores", SCORE, anomaly_score=[0.5] * 9 + [3.0] + [0.5] * 9),
    "another detector's score": series("gate_scores", SCORE | {"detector": "rules"}, anomaly_score=[3.0] * 9),
    "an input gate that shuts": series("gate_stats", GATE | {"gate": "input"}, mean=[*LEVEL, *[0.01] * 9]),
    "gradients before anything is usual": series("layer_updates", PARAM, gradient_norm=[1.0, 500.0, 1.0]),
    "all layers frozen, as at a learning rate of 0": [
        *series("layer_updates", PARAM, update_norm=[0.0] * 9),
        *series("layer_updates", PARAM | {"layer": "dense"}, update_norm=[0.0] * 9),
    ],
    "a bias that stands still in a layer that moves": [
        *series("layer_updates", PARAM, update_norm=[1e-3] * 9),
        *series("layer_updates", PARAM | {"param": "bias"}, update_norm=[0.0] * 9),
        *series("layer_updates", PARAM | {"layer": "dense"}, update_norm=[1e-3] * 9),
    ],
    "dead units of a layer of unknown size": series("gate_stats", HIDDEN | {"layer": "own"}, dead_units=[9] * 9),
    "a counter that begins anew": series("collector_health", RUN, 60, dropped=[0, 0, 0], shipped=[9, 0, 5]),
    "a spool that goes up and down": series("collector_health", RUN, 30, spooled_bytes=[0, 10**6] * 5),
    "a spool that fills between two heartbeats": series(
        "collector_health", RUN, 3, spooled_bytes=[k * 10**5 for k in range(9)]
    ),
    "services in turn that write of one job": series(
        "jobs_health", {"job": "score"}, 60, failures=[5, 0, 5, 0, 5, 0, 5, 0]
    ),
}


@pytest.mark.parametrize("rule", FAULTS)
def test_each_rule_fires_for_its_fault_and_no_other_does(watch, rule):
    assert watch.sees([*lived(300), *FAULTS[rule]], 301) == {rule}
    assert watch.events() == [(rule, "firing")]


@pytest.mark.parametrize("other", [{"gate": "input"}, {"layer": "head"}, {"symbol": "GOOG"}], ids=str)
def test_a_check_of_another_series_hides_no_anomaly(watch, other):
    checked = series("gate_scores", SCORE | {"detector": "checks"} | other, anomaly_score=[0.0] * 20 + [2.0] * 3)
    assert watch.sees([*lived(300), *FAULTS["anomaly"], *checked], 301) == {"anomaly", "check_failed"}


def test_an_anomaly_that_a_check_explains_later_goes_on_until_it_is_calm(watch):
    scores = [0.5] * 20 + [1.2, 1.3]
    assert watch.sees([*lived(300), *series("gate_scores", SCORE, anomaly_score=scores)], 301) == {"anomaly"}
    checks = SCORE | {"detector": "checks"}
    failed = [
        *series("gate_scores", SCORE, anomaly_score=[*scores, 2.0, 2.0]),
        *series("gate_scores", checks, anomaly_score=[0.0] * 22 + [2.0, 2.0]),
    ]
    assert watch.sees(failed, 302) == {"anomaly", "check_failed"}
    calm = [
        *series("gate_scores", SCORE, anomaly_score=[*scores, 2.0, 2.0, *[0.5] * 5]),
        *series("gate_scores", checks, anomaly_score=[0.0] * 22 + [2.0, 2.0] + [0.0] * 5),
    ]
    assert watch.sees(calm, 303) == set()


def test_a_firing_keeps_the_source_of_its_worst_capture(watch):
    scored = series(
        "gate_scores",
        SCORE | {"detector": "checks"},
        anomaly_score=[0.0] * 5 + [2.0, 3.0, 2.5],
        source=["network"] * 5 + ["state", "optimizer", "state"],
        why_moments_fell=[0.0] * 5 + [2.0, 3.0, 2.5],
    )
    watch.sees([*lived(300), *scored], 301)
    (entry,) = json.loads((watch.folder / "alerts/alerts.json").read_bytes())["entries"].values()
    assert entry["firing"]["source"] == "optimizer"


def test_a_firing_says_how_many_baselines_came_as_far_as_its_worst_capture(watch):
    scored = series(
        "gate_scores",
        SCORE,
        anomaly_score=[0.5] * 10 + [2.0, 3.0, 2.5, 2.5],
        baselines=[0] * 10 + [19] * 4,
        reached_by=[0] * 10 + [4, 2, 3, 3],
    )
    watch.sees([*lived(300), *scored], 301)
    (entry,) = json.loads((watch.folder / "alerts/alerts.json").read_bytes())["entries"].values()
    assert entry["firing"]["reached"] == "2 of 19 healthy runs of this network came this far"


@pytest.mark.parametrize("case", HEALTHY)
def test_what_is_no_fault(watch, case):
    assert watch.sees([*lived(600), *HEALTHY[case]], 601) == set()
    assert watch.events() == []


def test_every_built_in_rule_is_tested_here_or_is_a_silence():
    assert {r.name for r in BUILT_IN if not r.about_silence and not r.grafana.alone} == set(FAULTS)


@pytest.mark.parametrize("rule", FAULTS)
def test_capture_by_capture_is_as_all_at_once(watch, rule):
    """What is read in parts fires as what is read whole does: nothing is read twice, or forgotten between two turns."""
    watch.sees(lived(600), 0)
    captures = {}
    for point in FAULTS[rule]:
        captures.setdefault(point.time, []).append(point)
    fired = [watch.sees(captures[time], 1 + k) for k, time in enumerate(sorted(captures))]
    assert fired[-1] == {rule}
    assert all(not early for early in fired[: len(fired) // 2])
    assert watch.outcome.rows_read < 12
    assert watch.events() == [(rule, "firing")]


def test_an_episode_tells_since_when_how_bad_and_why(watch):
    why = [0.0] * 20 + [-9.0, -4.0, -2.0]
    points = series("gate_scores", SCORE, anomaly_score=[0.5] * 20 + [1.9, 0.9, 1.3], why_mean_activation=why)
    watch.sees([*lived(300), *points], 301)
    (entry,) = json.loads((watch.folder / "alerts/alerts.json").read_bytes())["entries"].values()
    firing = entry["firing"]
    assert (firing["since"], firing["since_step"]) == (at(20), 20)
    assert (firing["value"], firing["worst"]) == (1.3, 1.9)
    assert entry["tags"] == SCORE


def test_it_is_over_once_the_last_captures_are_well_by_the_recovery_threshold(watch):
    shut = [*LEVEL, 0.04, 0.04, 0.04]
    watch.sees([*lived(300), *series("gate_stats", GATE, mean=shut)], 301)
    between = [*shut, *[0.06] * 9]  # above the threshold, below that of recovery
    assert watch.sees(series("gate_stats", GATE, mean=between), 302) == {"forget_gate_shut"}
    well = [*between, 0.2, 0.2]
    assert watch.sees(series("gate_stats", GATE, mean=well), 303) == {"forget_gate_shut"}
    assert watch.sees(series("gate_stats", GATE, mean=[*well, 0.2]), 304) == set()
    assert watch.events() == [("forget_gate_shut", "firing"), ("forget_gate_shut", "recovered")]


def test_what_began_and_ended_between_two_evaluations_is_told_all_the_same(watch):
    assert watch.sees([*lived(300), *series("gate_stats", GATE, nan_count=[0] * 9 + [4] + [0] * 9)], 301) == set()
    assert watch.events() == [("gate_not_finite", "firing"), ("gate_not_finite", "recovered")]
    assert watch.store.read("alert_events")["value"].tolist() == [4, 0]


def test_what_is_worth_telling_only_while_it_lasts(watch):
    outage = [k * 10**6 for k in range(8)] + [0] * 8
    assert watch.sees([*lived(600), *series("collector_health", RUN, 30, spooled_bytes=outage)], 601) == set()
    assert watch.events() == []


def test_what_was_told_while_it_lasted_is_told_to_be_over(watch):
    growing = [k * 10**6 for k in range(8)]
    watch.sees([*lived(600), *series("collector_health", RUN, 30, spooled_bytes=growing)], 601)
    assert watch.sees(series("collector_health", RUN, 30, spooled_bytes=growing + [0] * 8), 616) == set()
    assert watch.events() == [("spool_growing", "firing"), ("spool_growing", "recovered")]


def test_market_time_is_judged_like_any_other(watch):
    """A backtest's captures lie years before its heartbeats, and come while it runs."""
    market = BEGUN - 10**9 * S
    tags = RUN | {"phase": "backtest"}
    stats = [replace(point, time=point.time - BEGUN + market) for point in FAULTS["forget_gate_shut"]]
    stats = [replace(point, tags=point.tags | {"phase": "backtest"}) for point in stats]
    assert watch.sees([*lived(60, tags), *stats[:10]], 61) == set()
    assert watch.sees(stats[10:], 76) == {"forget_gate_shut"}
    watch.sees((), 91)
    assert watch.sees((), 106) == {"forget_gate_shut"}
    assert watch.outcome.rows_read <= 5


def test_a_long_run_is_read_hour_by_hour_and_only_as_far_as_runs_are_watched(tmp_path):
    watch = Watch(tmp_path, lookback_hours=6.0)
    means = [0.7] * 200 + [0.01] * 40  # a capture each 3 minutes, the fault in the last two hours
    early = series("layer_updates", PARAM, 180, gradient_norm=[1.0] * 20 + [500.0] + [1.0] * 219)
    points = [*lived(720 * 60), *series("gate_stats", GATE, 180, mean=means), *early]
    assert watch.sees(points, 720 * 60 + 1) == {"forget_gate_shut"}
    assert watch.events() == [("forget_gate_shut", "firing")]  # what exploded 11 hours ago is past
    watch.sees((), 720 * 60 + 16)
    assert watch.outcome.rows_read < 12


def test_a_run_that_was_silent_for_longer_than_runs_are_watched_is_none(watch):
    assert watch.sees([*lived(300), *FAULTS["forget_gate_shut"]], 301 + 25 * 3600) == set()
    assert watch.outcome.rows_read == 0


def test_odd_points_of_one_run_do_not_hold_up_the_others(watch, monkeypatch):
    watch.sees(FAULTS["anomaly"], 0)
    monkeypatch.setattr("gatewatch.jobs.alerts.reader.units_by_layer", lambda config: 1 / config["ok"])
    odd = [replace(p, tags=RUN | {"run": "odd"}) for p in lived(60, ok=0)]
    monkeypatch.setattr("gatewatch.jobs.alerts.reader.config_of", lambda text: {"ok": json.loads(text)["ok"]})
    assert watch.sees([*lived(60, ok=1), *odd], 61) == {"anomaly"}
    assert watch.outcome.failures == 1
    assert watch.outcome.failed["odd"].startswith("ZeroDivisionError")


class TestSilence:
    def test_a_run_that_says_nothing_any_more_has_died_and_is_well_when_it_is_heard_again(self, watch):
        fired = {seconds: watch.sees(lived(60) if seconds == 60 else (), seconds) for seconds in range(60, 240, 15)}
        assert fired[180] == set()
        assert fired[195] == {"run_died"}
        assert watch.sees([Point("runs", RUN, {"event": "heartbeat", "step": 9}, at(235))], 240) == set()
        assert watch.events() == [("run_died", "firing"), ("run_died", "recovered")]

    @pytest.mark.parametrize("end", ["completed", "failed", "interrupted"])
    def test_one_that_has_ended_has_not(self, watch, end):
        watch.sees([*lived(60), Point("runs", RUN, {"event": end, "step": 9}, at(61))], 62)
        assert not any(watch.sees((), seconds) for seconds in range(77, 600, 15))

    def test_what_fires_when_a_run_ends_is_recorded_as_ended_and_not_as_recovered(self, watch):
        watch.sees([*lived(300), *FAULTS["forget_gate_shut"]], 301)
        watch.sees([Point("runs", RUN, {"event": "completed", "step": 9}, at(310))], 316)
        for seconds in range(331, 4000, 15):
            watch.sees((), seconds)
        assert watch.events() == [("forget_gate_shut", "firing"), ("forget_gate_shut", "ended")]
        assert watch.outcome.firing == 0

    def test_points_that_come_late_and_a_clock_that_is_behind_are_no_death(self, watch):
        """A machine that is five minutes behind, and that ships what has waited."""
        for seconds in range(0, 600, 15):
            beat = Point(
                "runs", RUN, {"event": "heartbeat" if seconds else "started", "step": seconds}, at(seconds - 300)
            )
            assert watch.sees([beat], seconds) == set()

    def test_who_did_not_listen_hears_out_the_silence_anew(self, watch):
        watch.sees(lived(60), 60)
        assert watch.sees((), 3600) == set()
        assert watch.sees((), 3700) == set()
        assert watch.sees((), 3800) == {"run_died"}

    def test_a_phase_that_dies_beside_one_that_lives(self, watch):
        other = RUN | {"phase": "validation"}
        watch.sees([*lived(60), *lived(60, other)], 60)
        for seconds in range(75, 300, 15):
            watch.sees([Point("runs", other, {"event": "heartbeat", "step": 1}, at(seconds))], seconds)
        assert watch.firing == {"run_died"}
        assert watch.store.read("alert_events")["phase"].tolist() == ["train"]

    def test_captures_that_stop_while_the_run_lives(self, watch):
        """A capture a minute, then none: ten times the usual spacing is ten minutes."""
        fired = {}
        for seconds in range(0, 2100, 60):
            points = [
                Point("runs", RUN, {"event": "heartbeat" if seconds else "started", "step": 1}, at(seconds)),
                Point("collector_health", RUN, {"captured": min(seconds // 60, 20)}, at(seconds)),
            ]
            fired[seconds] = watch.sees(points, seconds)
        assert fired[20 * 60 + 600] == set()
        assert fired[20 * 60 + 660] == {"captures_stalled"}

    def test_fast_captures_may_pause_for_a_few_minutes(self, watch):
        captures = series("collector_health", RUN, 0.1, captured=list(range(1, 100)))
        watch.sees([*lived(0), *captures], 10)
        fired = {}
        for seconds in range(30, 400, 30):
            points = [
                Point("runs", RUN, {"event": "heartbeat", "step": 1}, at(seconds)),
                Point("collector_health", RUN, {"captured": 99}, at(seconds)),
            ]
            fired[seconds] = watch.sees(points, seconds)
        assert fired[300] == set()
        assert fired[330] == {"captures_stalled"}

    def test_captures_that_get_no_scores(self, watch):
        fired = {}
        for k in range(0, 40):
            points = [
                Point("runs", RUN, {"event": "heartbeat" if k else "started", "step": k}, at(15 * k)),
                Point("gate_stats", GATE, {"nan_count": 0, "inf_count": 0, "step": k}, at(15 * k)),
            ]
            if k < 10:
                points += [Point("gate_stats", GATE, {"nan_count": 0, "step": k}, at(15 * k) + n * S) for n in range(4)]
                points += [Point("gate_scores", SCORE, {"anomaly_score": 0.5, "step": k}, at(15 * k))]
            fired[15 * k] = watch.sees(points, 15 * k)
        assert not any(fired[15 * k] for k in range(30))
        assert fired[15 * 39] == {"scores_stale"}

    def test_no_scores_are_missed_in_the_warm_up_nor_of_captures_that_are_not_finite(self, watch):
        points = series("gate_stats", GATE, 15, nan_count=[0] * 20 + [1] * 60, inf_count=0)
        for k, point in enumerate(points):
            beat = Point("runs", RUN, {"event": "heartbeat" if k else "started", "step": k}, point.time)
            watch.sees([beat, point], 15 * k)
        assert watch.firing == {"gate_not_finite"}

    def test_a_job_that_hangs_is_told_of_but_does_not_end(self, watch):
        """The service tells of each job once a minute, whether its turn has ended or not."""
        fired = {}
        for minute in range(40):
            fields = {"duration_s": min(minute, 20) / 10, "lag_s": 1.0, "failures": 0, "missed": 0}
            fired[minute] = watch.sees([Point("jobs_health", {"job": "score"}, fields, at(60 * minute))], 60 * minute)
        assert fired[30] == set()
        assert fired[31] == {"jobs_stuck"}
        over = Point("jobs_health", {"job": "score"}, {"duration_s": 99.0, "lag_s": 1.0}, at(2400))
        assert watch.sees([over], 2400) == set()

    def test_a_job_that_was_configured_away_is_none_that_hangs(self, watch):
        watch.sees(series("jobs_health", {"job": "score-3"}, 60, duration_s=[0.1 * k for k in range(9)]), 9 * 60)
        assert not any(watch.sees((), 60 * minute) for minute in range(10, 60))

    def test_a_store_that_is_away(self, watch, monkeypatch):
        watch.sees(lived(60), 60)

        def away():
            raise WriteUnavailable("nobody there")

        with monkeypatch.context() as patched:
            patched.setattr(watch.store, "runs", away)
            for seconds in range(75, 420, 15):
                with pytest.raises(WriteUnavailable, match="nobody there"):
                    watch.sees((), seconds)
                assert watch.firing == ({"store_away"} if seconds > 375 else set())
        assert watch.sees((), 420) == set()
        assert watch.events() == [("store_away", "firing"), ("store_away", "recovered")]


class TestRulesOfOnesOwn:
    OWN = AlertRuleSettings(
        name="loss_high",
        measurement="train_metrics",
        field="loss",
        where={"phase": ["train", "live"], "symbol": "GOOG"},
        above=2.0,
        for_captures=2,
        within=3,
    )

    def test_one_fires_for_what_it_names(self, tmp_path):
        watch = Watch(tmp_path, rules=[self.OWN])
        losses = series("train_metrics", RUN | {"symbol": "GOOG"}, loss=[1.0, 3.0, 1.0, 3.0])
        others = series("train_metrics", RUN | {"symbol": "BTC"}, loss=[9.0] * 9)
        assert watch.sees([*lived(60), *losses, *others], 61) == {"loss_high"}
        assert watch.store.read("alert_events")["symbol"].tolist() == ["GOOG"]

    def test_one_may_look_below_and_at_the_median(self, tmp_path):
        low = AlertRuleSettings(
            name="reward_low", measurement="train_metrics", field="reward", measure="times_median", below=0.1
        )
        watch = Watch(tmp_path, rules=[low])
        assert watch.sees([*lived(60), *series("train_metrics", RUN, reward=[5.0] * 10 + [0.4])], 61) == {"reward_low"}

    def test_a_rule_that_is_disabled_does_not_fire_and_one_that_fired_is_forgotten(self, tmp_path):
        points = [*lived(60), *FAULTS["anomaly"]]
        watch = Watch(tmp_path)
        assert watch.sees(points, 61) == {"anomaly"}
        watch.settings = Settings(alerts=AlertSettings(disable=["anomaly"]))
        assert watch.sees((), 62) == set()

    def test_names_are_held_together(self):
        with pytest.raises(ConfigError, match=r"disable: there is no rule 'anomly'; there are anomaly, "):
            active_rules(AlertSettings(disable=["anomly"]))
        own = self.OWN.model_copy(update={"name": "anomaly"})
        with pytest.raises(ConfigError, match="'anomaly': there is a rule of this name"):
            active_rules(AlertSettings(rules=[own]))
        with pytest.raises(ConfigError, match="'loss_high': there is a rule of this name"):
            active_rules(AlertSettings(rules=[self.OWN, self.OWN]))


VALUE = st.floats(0, 4).map(lambda value: round(value, 1)) | st.just(float("nan"))


@settings(deadline=None, max_examples=200)
@given(
    values=st.lists(VALUE, max_size=30),
    parts=st.lists(st.integers(0, 30), max_size=5),
    times=st.integers(1, 3),
    more=st.integers(0, 3),
    measure=st.sampled_from(["value", "rise", "times_median"]),
    inside=st.booleans(),
)
def test_the_parts_in_which_captures_come_make_no_difference(values, parts, times, more, measure, inside):
    condition = Condition(above=2.0, recovery=1.0, for_captures=times, within=times + more, after_inside=inside)
    rule = Rule("r", "", "", Quantity("m", "f", measure=measure), condition)
    whole, split = SeriesState(), SeriesState()
    update_series(rule, whole, _values(values, 0, len(values)))
    begin = 0
    for end in [*sorted(parts), len(values)]:
        update_series(rule, split, _values(values, max(0, begin - 2), end))  # with some that were there before
        begin = end
    for state in (whole, split):
        if state.firing is not None and state.firing.until is not None:
            state.firing = None  # whether one that is over is still there depends on when it was looked at
    if whole.firing is not None and split.firing is not None:
        split.firing.since = whole.firing.since  # one that came back among captures that came together is one
        split.firing.since_step, split.firing.worst = whole.firing.since_step, whole.firing.worst
    assert split == whole


@settings(deadline=None, max_examples=200)
@given(values=st.lists(VALUE, max_size=30), times=st.integers(1, 3), more=st.integers(0, 3))
def test_it_fires_where_so_many_of_so_many_captures_lie_beyond(values, times, more):
    rule = Rule("r", "", "", Quantity("m", "f"), Condition(above=2.0, for_captures=times, within=times + more))
    finite = [(k, value) for k, value in enumerate(values) if np.isfinite(value)]
    expected, since = False, None
    for k in range(1, len(finite) + 1):
        window = finite[max(0, k - rule.condition.within) : k]
        beyond = [number for number, value in window if value > 2]
        if not expected and len(beyond) >= times and window[-1][1] > 2:
            expected, since = True, beyond[0]
        elif expected and not beyond:
            expected = False
    state = SeriesState()
    for k in range(len(values)):
        update_series(rule, state, _values(values, k, k + 1))
    firing = state.firing is not None and state.firing.until is None
    assert firing == expected
    if firing:
        assert state.firing.since_step == since
        assert state.firing.worst == max(value for number, value in finite if number >= since)


def _values(values, begin, end):
    chosen = np.arange(min(begin, len(values)), min(end, len(values)))
    return RuleValues({}, chosen, chosen.astype(float), np.array(values, dtype=float)[chosen])


class TestLifecycle:
    RULE = Rule("r", "s", "", Quantity("m", "f"), Condition(above=1.0))
    SETTINGS = AlertSettings()

    def mails(self, happenings, until, settings=SETTINGS):
        """What is mailed: second → the kinds, where a series fires and ends at such moments (key, second, firing)."""
        entries, mailed, told = {}, {}, {}
        for second in range(0, until, 15):
            alerts = []
            for key, when, firing in happenings:
                if second - 15 < when <= second:
                    begun = max(w for k, w, f in happenings if k == key and f and w <= when)
                    state = Firing(begun, None, 2.0, 2.0, until=None if firing else when)
                    alerts.append(Alert(self.RULE, {"run": key.partition("/")[0], "layer": key}, state))
            advance(entries, alerts, at(second))
            for run, (items, _) in due(entries, mailed, settings, at(second)).items():
                told.setdefault(second, {})[run] = sorted((item.entry.tags["layer"], item.kind) for item in items)
        return told

    def test_what_comes_together_is_one_mail_a_run(self):
        told = self.mails([("a/1", 0, True), ("a/2", 20, True), ("b/1", 15, True)], 300)
        assert told == {30: {"a": [("a/1", "firing"), ("a/2", "firing")]}, 45: {"b": [("b/1", "firing")]}}

    def test_what_fires_still_is_told_again_and_then_that_it_is_over(self):
        told = self.mails([("a/1", 0, True), ("a/1", 9 * 3600, False)], 12 * 3600)
        assert told == {
            30: {"a": [("a/1", "firing")]},
            30 + 4 * 3600: {"a": [("a/1", "repeated")]},
            30 + 8 * 3600: {"a": [("a/1", "repeated")]},
            30 + 9 * 3600: {"a": [("a/1", "recovered")]},
        }

    def test_flapping_is_told_in_pieces(self):
        flaps = [("a/1", 60 * k, k % 2 == 0) for k in range(40)]
        told = self.mails(flaps, 3000)
        moments = sorted(told)
        assert min(np.diff(moments)) >= 300
        assert len(moments) <= 9

    def test_what_was_over_before_it_was_told_is_told_once(self):
        assert self.mails([("a/1", 0, True), ("a/1", 15, False)], 9000) == {30: {"a": [("a/1", "passed")]}}

    def test_what_came_back_before_its_end_was_told_is_no_news(self):
        told = self.mails([("a/1", 0, True), ("a/1", 60, False), ("a/1", 90, True)], 3600)
        assert told == {30: {"a": [("a/1", "firing")]}}

    def states(self, changes, until=10 * 3600, rule=RULE, recovers=None):
        """Second → the kinds of mails about an alert that fires at 0, while its run has these states from then on."""
        entries, mailed, told, events = {}, {}, {}, []
        tags = {"run": "a", "phase": "train"}
        for second in range(0, until, 15):
            if second in (0, recovers):
                over = at(second) if second else None
                events += advance(entries, [Alert(rule, tags, Firing(at(0), None, 2.0, 2.0, until=over))], at(second))
            state = [state for since, state in sorted(changes.items()) if since <= second][-1]
            end_with_runs(entries, {"a": {"train": state}, "b": {"train": "completed"}}, at(second))
            for items, more in due(entries, mailed, self.SETTINGS, at(second)).values():
                told[second] = [item.kind for item in items]
                events += more
        return told, [event.state for event in events]

    @pytest.mark.parametrize("how", ["completed", "failed", "interrupted", "died"])
    def test_a_run_that_ends_while_an_alert_fires_is_mailed_once(self, how):
        told, events = self.states({0: "live", 600: how})
        assert told == {30: ["firing"], 630: ["ended"]}
        assert events == ["firing", "ended"]

    def test_a_run_that_ends_before_its_alert_was_mailed_gets_one_mail(self):
        assert self.states({0: "live", 15: "completed"}) == ({30: ["ended"]}, ["firing", "ended"])

    def test_an_alert_about_captures_that_are_read_after_the_end_of_the_run_says_that_it_ended(self):
        assert self.states({0: "completed"}) == ({30: ["ended"]}, ["firing", "ended"])

    def test_a_run_that_goes_on_after_its_end_is_repeated_again(self):
        told, _ = self.states({0: "live", 600: "died", 3600: "live"}, until=5 * 3600)
        assert told == {30: ["firing"], 630: ["ended"], 630 + 4 * 3600: ["repeated"]}

    def test_a_run_that_goes_on_before_its_end_was_mailed_is_no_news(self):
        assert self.states({0: "live", 600: "died", 615: "live"}, until=3600)[0] == {30: ["firing"]}

    def test_what_recovers_in_captures_that_are_read_after_the_end_is_over(self):
        told, events = self.states({0: "live", 600: "completed"}, recovers=1200)
        assert told == {30: ["firing"], 630: ["ended"], 1230: ["recovered"]}
        assert events == ["firing", "ended", "recovered"]

    def test_what_recovers_in_scores_that_come_just_after_the_end_has_not_ended(self):
        told, events = self.states({0: "live", 600: "completed"}, recovers=615)
        assert told == {30: ["firing"], 630: ["recovered"]}
        assert events == ["firing", "recovered"]

    def test_the_death_of_a_run_is_repeated_while_it_lasts(self):
        died = next(rule for rule in BUILT_IN if rule.name == "run_died")
        told, _ = self.states({0: "died"}, until=5 * 3600, rule=died)
        assert told == {30: ["firing"], 30 + 4 * 3600: ["repeated"]}

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.tuples(st.sampled_from(["a/1", "a/2", "b/1"]), st.integers(0, 20_000)), max_size=25))
    def test_whatever_happens_each_series_is_told_in_turns(self, flips):
        happenings, firing = [], {}
        for key, when in sorted(set(flips), key=lambda flip: flip[1]):
            firing[key] = not firing.get(key, False)
            happenings.append((key, when, firing[key]))
        told = self.mails(happenings, 40_000)
        for key in ("a/1", "a/2", "b/1"):
            kinds = [
                kind for _, runs in sorted(told.items()) for items in runs.values() for k, kind in items if k == key
            ]
            line = " ".join(kinds)
            assert re.fullmatch(r"(passed ?|firing ?(repeated ?)*(recovered ?|$))*", line), line
            assert (kinds[-1:] in (["firing"], ["repeated"])) == firing.get(key, False)


def test_reasons_are_in_words_and_unknown_ones_as_they_are():
    told = in_words({"mean_activation": -12.345, "of_my_own": 3.0, "entropy": 20.0, "leap": 1.5})
    assert told == [
        "the weights leapt further than ever before in this run (leap)",
        "its activations spread over more of the scale (entropy, 20× its usual)",
        "the gate closes further than its trend (mean_activation, 12× its usual)",
        "it rose (of_my_own, 3× its usual)",
    ]
    assert "\n" not in in_words({"evil\nSubject: x": 1.0})[0]


def test_every_cause_of_a_score_has_its_words():
    assert set(SIGNALS) <= set(PHRASES)
    assert set(RULES) <= set(BROKEN)


class TestRunbook:
    SECTIONS: ClassVar = dict(re.findall(r"^## ([a-z_]+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.M | re.S))

    def test_every_rule_has_its_section_and_every_section_its_rule(self):
        assert list(self.SECTIONS) == [rule.name for rule in BUILT_IN]

    def test_its_links_lead_somewhere(self):
        assert set(re.findall(r"\]\(#([^)]*)\)", RUNBOOK)) <= set(self.SECTIONS)

    @pytest.mark.parametrize("rule", BUILT_IN, ids=lambda rule: rule.name)
    def test_a_section_says_what_when_why_and_what_to_do(self, rule):
        section = self.SECTIONS[rule.name]
        for part in ("**Means.**", "**Fires**", "**Causes.**", "**Look at.**", "**Do.**"):
            assert part in section
        assert f"`{rule.quantity.measurement}`" in section
        for threshold in (rule.condition.above, rule.condition.below):
            if threshold:
                assert f"{threshold:g}" in section.replace(",", ""), threshold
        if rule.condition.within > 1:
            assert re.search(rf"\b{rule.condition.within}\b", section)


class TestAlertManager:
    def test_numbers_above_and_below_their_thresholds(self):
        manager = AlertManager(["a@b.c"], {"loss": 1.0, "reward": {"below": 0.0}, "gate": {"above": 0.9, "below": 0.1}})
        assert manager.check_metrics({"loss": 1.0, "reward": 0.0, "gate": 0.5, "other": 99}) == []
        found = manager.check_metrics({"loss": 1.5, "reward": -2.0, "gate": 0.05})
        assert [tuple(one) for one in found] == [
            ("loss", 1.5, 1.0, "above"),
            ("reward", -2.0, 0.0, "below"),
            ("gate", 0.05, 0.1, "below"),
        ]
        assert [str(one) for one in found] == [
            "loss is 1.5, above 1",
            "reward is -2, below 0",
            "gate is 0.05, below 0.1",
        ]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
    def test_what_is_not_finite_is_out_of_bounds(self, value):
        (found,) = AlertManager("a@b.c", {"loss": {"below": -1e308}}).check_metrics({"loss": value})
        assert str(found) == f"loss is {float(value)}, not a finite number"

    def test_numbers_of_any_library_and_no_others(self):
        import torch

        manager = AlertManager("a@b.c", dict.fromkeys("abcdef", 1.0))
        metrics = {
            "a": np.float64(2),
            "b": np.array(3),
            "c": torch.tensor(4.0, requires_grad=True),
            "d": "5",
            "e": None,
            "f": [6.0, 7.0],
        }
        assert [found.metric for found in manager.check_metrics(metrics)] == ["a", "b", "c"]

    @pytest.mark.parametrize(
        ("recipients", "thresholds", "problem"),
        [
            ([], {}, "recipients: there is none"),
            (["a b"], {}, "'a b' is no mail address"),
            (["a@b.c\nBcc: x@y.z"], {}, "is no mail address"),
            ([3], {}, "recipients: "),
            ("a@b.c", [1], "must be a mapping"),
            ("a@b.c", {"loss": "high"}, r"thresholds\['loss'\]='high': must be a number"),
            ("a@b.c", {"loss": {}}, "must be a number"),
            ("a@b.c", {"loss": {"over": 1}}, "above, below or both"),
            ("a@b.c", {"loss": {"above": None}}, "above, below or both"),
            ("a@b.c", {"loss": float("nan")}, "must be a number"),
        ],
    )
    def test_what_is_wrong_is_said_at_construction(self, recipients, thresholds, problem):
        with pytest.raises(ConfigError, match=problem) as caught:
            AlertManager(recipients, thresholds)
        assert "\n" not in str(caught.value)

    def test_it_is_a_public_name(self):
        import gatewatch

        assert gatewatch.AlertManager is AlertManager
