"""The evaluator of the jobs and Grafana's queries, over the same captures: they find the same series firing."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gatewatch.collector.config import Settings
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.alerts import BUILT_IN, evaluate
from gatewatch.jobs.alerts.rule import GATE, Condition, InGrafana, Quantity, Rule
from grafana.emulator.frames import FluxSource
from grafana.source.rules import grafana_rule
from tests.grafana_alerts import SECOND
from tests.grafana_alerts import Evaluator as Grafana

BEGUN = 1_790_000_000 // 60 * 60
"""Seconds since the epoch at which each run starts."""
CONFIG = json.dumps({"layers": {"memory": {"type": "LSTM", "units": 8}}})
RULES = {rule.name: rule for rule in BUILT_IN}
GATES = {"layer": "memory", "gate": "forget"}
PARAM = {"layer": "memory", "param": "kernel"}
TOY = Rule(
    "entropy_low",
    "a gate's activations have become alike",
    "Look at the inputs.",
    Quantity("gate_stats", "entropy", "entropy", GATE),
    Condition(below=0.5, recovery=0.6, for_captures=2, within=3),
    InGrafana("gates", "Memory timescale"),
)
_numbers = itertools.count()


def captures(*values: float) -> st.SearchStrategy[list[float]]:
    """Values of a series' captures: spells of each of these, in any order and length."""
    spell = st.tuples(st.sampled_from(values), st.integers(1, 6)).map(lambda pair: [pair[0]] * pair[1])
    return st.lists(spell, min_size=1, max_size=8).map(lambda spells: [value for spell in spells for value in spell])


def field(measurement, tags, name, kind=float):
    return lambda run, time, value: [Point(measurement, run | tags, {name: kind(value)}, time)]


def frozen(run, time, values):
    """Updates of two parameters of a layer and of another layer: none, or some, for each."""
    kernel, bias, dense = values
    tags = ((PARAM, kernel), (PARAM | {"param": "bias"}, bias), (PARAM | {"layer": "dense"}, dense))
    return [Point("layer_updates", run | more, {"update_norm": norm}, time) for more, norm in tags]


def not_finite(measurement, tags):
    return lambda run, time, values: [
        Point(measurement, run | tags, {"nan_count": values[0], "inf_count": values[1]}, time)
    ]


def consensus(run, time, values):
    """What the consensus says of a gate, and, where it does, the checks."""
    score, checked = values
    points = field("gate_scores", GATES | {"detector": "consensus"}, "anomaly_score")(run, time, score)
    if checked is not None:
        points += field("gate_scores", GATES | {"detector": "checks"}, "anomaly_score")(run, time, checked)
    return points


HEALTH = ("collector_health", {})
CASES = {
    "anomaly": (
        consensus,
        captures((0.5, None), (0.5, 0.0), (1.0, None), (1.1, None), (3.0, 1.0), (2.0, 2.0), (3.0, 1.1)),
    ),
    "check_failed": (field("gate_scores", GATES | {"detector": "checks"}, "anomaly_score"), captures(0.0, 1.0, 2.0)),
    "data_changed": (field("gate_scores", GATES | {"detector": "data"}, "anomaly_score"), captures(0.5, 1.0, 1.1)),
    "gate_not_finite": (not_finite("gate_stats", GATES), captures((0, 0), (0, 0), (2, 0), (0, 1))),
    "update_not_finite": (not_finite("layer_updates", PARAM), captures((0, 0), (0, 0), (2, 0), (0, 1))),
    "forget_gate_shut": (field("gate_stats", GATES, "mean"), captures(0.7, 0.07, 0.05, 0.02)),
    "forget_gate_open": (field("gate_stats", GATES, "mean"), captures(0.7, 0.993, 0.995, 0.999)),
    "gradient_vanishing": (field("layer_updates", PARAM, "gradient_norm"), captures(1.0, 5e-7, 1e-7, 1e-9)),
    "layer_frozen": (frozen, captures((0.0, 0.0, 0.0), (0.0, 0.0, 1e-3), (0.0, 1e-3, 0.0), (1e-3, 1e-3, 1e-3))),
    "units_dead": (field("gate_stats", GATES | {"gate": "hidden"}, "dead_units", int), captures(0, 3, 4, 5, 8)),
    "generalisation_gap": (field("gate_derived", {"layer": "_model"}, "generalisation_gap"), captures(0.1, 0.45, 0.6)),
    "points_dropped": (field(*HEALTH, "dropped", int), captures(0, 5, 7, 20)),
    "spool_growing": (
        field(*HEALTH, "spooled_bytes", int),
        st.lists(st.sampled_from([70_000, 70_000, 70_000, 60_000, 0, -500_000]), min_size=1, max_size=30).map(
            lambda growth: [1_000_000 + total for total in itertools.accumulate(growth)]
        ),
    ),
    "jobs_late": (field("jobs_health", {}, "lag_s"), captures(5.0, 100.0, 300.0, 400.0)),
    "jobs_failing": (field("jobs_health", {}, "failures", int), captures(*range(9))),
    TOY.name: (field("gate_stats", GATES, "entropy"), captures(0.4, 0.5, 0.55, 1.0)),
}
"""Rule → the points of a capture's value, and the values of a series."""
SPACING = st.sampled_from([0.25, 1.0, 7.0])
FEW = settings(
    max_examples=4,  # each compares so many series as are in it
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def bucket(influxd):
    """A fresh bucket, as a store and as Grafana reads it."""
    name = influxd.bucket()
    return influxd.store(name), FluxSource(influxd.url, org=influxd.org, bucket=name, token=influxd.token)


def started(run):
    return Point("runs", run, {"event": "started", "config": CONFIG, "step": 0}, BEGUN * SECOND)


def found(rule, make, series, spacing, influxd, folder):
    """The runs for which the evaluator fires, and those for which Grafana does; a run each series."""
    names = {f"run-{next(_numbers)}": values for values in series}
    points, end = [], BEGUN
    for name, values in names.items():
        run = {"job": name} if rule.quantity.measurement == "jobs_health" else {"run": name, "phase": "train"}
        points += [] if "job" in run else [started(run)]
        for k, value in enumerate(values):
            at = BEGUN + 400 + k * spacing
            points += make(run, int(at * SECOND), value)
            end = max(end, int(at))
    influx, source = bucket(influxd)
    influx.write(points)
    jobs = open_store(f"sqlite:///{folder / f'{next(_numbers)}.db'}")
    jobs.write(points)
    state = folder / str(next(_numbers))
    evaluate(jobs, Settings(), state, end * SECOND, rules=[rule])
    jobs.close()
    entries = json.loads((state / "alerts/alerts.json").read_bytes())["entries"].values()
    firing = {e["tags"].get("run") or e["tags"]["job"] for e in entries if e["firing"]["until"] is None}
    grafana = Grafana(grafana_rule(rule, lambda uid, title: 1), source)
    grafana.evaluate(end + 120)  # an alert goes on for up to 90 seconds after it is resolved
    alerting = {dict(labels).get("run") or dict(labels)["job"] for labels in grafana.alerting}
    for later in range(end + 180, end + rule.grafana.lookback_seconds + 240, 120):
        grafana.evaluate(later)
    assert grafana.alerting == set()
    assert "resolved" not in {kind for _, kind, _ in grafana.mailed}, (
        "captures that leave the time range are no recovery"
    )
    return firing, alerting


@pytest.mark.parametrize("name", CASES)
@FEW
@given(data=st.data())
def test_both_find_the_same_series_firing(name, data, influxd, tmp_path):
    rule = RULES.get(name, TOY)
    make, values = CASES[name]
    series = data.draw(st.lists(values, min_size=12, max_size=12))
    spacing = 30.0 if rule.quantity.measure in ("rise", "growth") else data.draw(SPACING)
    firing, alerting = found(rule, make, series, spacing, influxd, tmp_path)
    assert alerting == firing


@FEW
@given(
    usual=st.lists(st.sampled_from([0.9, 1.0, 1.1]), min_size=30, max_size=30),
    ends=st.lists(captures(1.0, 1.0, 10.0, 50.0, 300.0).map(lambda values: values[:12]), min_size=12, max_size=12),
    spacing=SPACING,
)
def test_both_find_the_same_gradients_exploding(usual, ends, spacing, influxd, tmp_path):
    """Their medians are taken over other captures: the same while less than half of them explode."""
    make = field("layer_updates", PARAM, "gradient_norm")
    rule = RULES["gradient_exploding"]
    series = [[*usual, *end] for end in ends]
    firing, alerting = found(rule, make, series, spacing, influxd, tmp_path)
    assert alerting == firing


def test_every_rule_about_captures_is_compared_and_the_others_say_who_evaluates_them():
    same = {"points_rejected": "points_dropped", "captures_failing": "points_dropped", "jobs_missed": "jobs_failing"}
    for rule, twin in same.items():
        assert RULES[rule].quantity.measure == RULES[twin].quantity.measure
    counted = {rule.name for rule in BUILT_IN if not rule.grafana.alone and not rule.about_silence}
    assert counted == {*CASES, "gradient_exploding", *same} - {TOY.name}
    assert {rule.name for rule in BUILT_IN if rule.grafana.alone} == {
        "jobs_silent",
        "nothing_written",
        "backtest_alert",
    }


def test_a_fault_between_two_evaluations_fires_in_grafana_too(influxd):
    """The gate is shut for 16 seconds, and open again 20 seconds before Grafana evaluates."""
    values = [0.7] * 60 + [0.02] * 16 + [0.7] * 20
    run = {"run": "short", "phase": "train"}
    influx, source = bucket(influxd)
    make = field("gate_stats", GATES, "mean")
    influx.write([one for k, value in enumerate(values) for one in make(run, (BEGUN + k) * SECOND, value)])
    grafana = Grafana(grafana_rule(RULES["forget_gate_shut"], lambda uid, title: 1), source)
    grafana.evaluate(BEGUN + 96)
    assert [dict(labels)["run"] for labels in grafana.alerting] == ["short"]
    grafana.evaluate(BEGUN + 180)
    assert grafana.alerting == set()


def test_a_rule_of_ones_own_fires_in_both(influxd, tmp_path):
    make = field("gate_stats", GATES, "entropy")
    series = [[1.0, 1.0, 0.4, 1.0, 0.4], [1.0, 0.4, 1.0, 1.0, 0.4]]
    firing, alerting = found(TOY, make, series, 1.0, influxd, tmp_path)
    assert len(firing) == 1
    assert alerting == firing
