"""A run's points as arrays: what is beside what, and what is of which phase."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from gatewatch import open_store
from gatewatch.collector.schema import GATE_STATS, GATE_UNITS, LAYER_UPDATES, TRAIN_METRICS, Point
from gatewatch.jobs.scoring.captures import MEASUREMENTS, captures, series_groups
from tests.recorded import GATES, PARAMS, SECOND, fill, moment, recorded


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


def found(store, run="r"):
    """The captures of each group of a run's series."""
    return [
        captures(group.tags, *(store.read(name, run=run, tags=group.only, prefix_tags=True) for name in MEASUREMENTS))
        for group in series_groups(store, run)
    ]


def test_each_value_is_at_its_capture(store):
    points = list(recorded(7))
    fill(store, points)
    (one,) = found(store)
    assert one.tags == {"run": "r", "phase": "train"}
    assert one.time.tolist() == [moment(k) for k in range(7)]
    assert one.step.tolist() == [*range(7)]
    assert set(one.gates) == set(one.units) == {("memory", gate) for gate in GATES}
    assert set(one.updates) == {("memory", param) for param in PARAMS}
    for k, capture in enumerate(points):
        for point in capture:
            series = point.tags.get("layer"), point.tags.get("gate", point.tags.get("param"))
            if point.measurement == GATE_STATS:
                for name, value in point.fields.items():
                    assert one.statistic(series, name)[k] == value
            elif point.measurement == GATE_UNITS:
                assert one.units[series][k].tolist() == [point.fields[f"u{i:03d}"] for i in range(4)]
            elif point.measurement == LAYER_UPDATES:
                for name, value in point.fields.items():
                    assert one.update(series, name)[k] == value
            elif point.measurement == TRAIN_METRICS:
                assert one.metrics["loss"][k] == point.fields["loss"]
    assert np.isnan(one.update(("memory", "kernel"), "update_frequency")).all()  # that none of them has
    assert set(one.metrics) == {"loss", "learning_rate"}


def test_a_part_is_of_everything(store):
    fill(store, recorded(9))
    (one,) = found(store)
    part = one.part(2, 5)
    fill(store, recorded(3, 2, run="part"))
    (same,) = found(store, "part")
    np.testing.assert_equal(
        [part.time, part.step, part.gates, part.units, part.updates, part.metrics],
        [same.time, same.step, same.gates, same.units, same.updates, same.metrics],
    )


def test_no_points_are_no_captures(store):
    assert found(store) == []
    fill(store, recorded(1, run="other"))
    assert found(store) == []


def test_phases_and_tags_part_a_run(store):
    fill(store, recorded(3, phase="live"))
    fill(store, recorded(2, phase="backtest", tags={"symbol": "GOOG"}))
    fill(store, recorded(4, phase="backtest", tags={"symbol": 'a,b "c" \''}))
    fill(store, recorded(5, phase="backtest"))
    fill(store, recorded(6, phase="train", params=(), loss=False))
    told = [(one.tags, len(one.time), len(one.updates), len(one.metrics)) for one in found(store)]
    assert told == [
        ({"run": "r", "phase": "train"}, 6, 0, 0),
        ({"run": "r", "phase": "backtest"}, 5, 3, 2),
        ({"run": "r", "phase": "backtest", "symbol": "GOOG"}, 2, 3, 2),
        ({"run": "r", "phase": "backtest", "symbol": 'a,b "c" \''}, 4, 3, 2),
        ({"run": "r", "phase": "live"}, 3, 3, 2),
    ]


def test_a_capture_of_one_layer_alone_has_none_of_the_other(store):
    fill(store, recorded(3))
    fill(store, recorded(2, 3, layers=("other",)))
    (one,) = found(store)
    assert one.captured(("memory", "forget")).tolist() == [True] * 3 + [False] * 2
    assert one.captured(("other", "forget")).tolist() == [False] * 3 + [True] * 2
    assert np.isnan(one.statistic(("memory", "forget"), "mean")[3:]).all()
    assert np.isnan(one.units["other", "input"][:3]).all()
    assert one.step.tolist() == [0, 1, 2, 3, 4]


def test_what_is_of_no_capture_is_left_out(store):
    fill(store, recorded(3))
    tags = {"run": "r", "phase": "train", "layer": "memory"}
    odd = moment(1) + 17
    store.write(
        [
            Point(LAYER_UPDATES, {**tags, "param": "kernel"}, {"update_ratio": 7.0, "step": 1}, odd),
            Point(GATE_UNITS, {**tags, "gate": "forget"}, {"u000": 7.0, "step": 1}, odd),
            Point(TRAIN_METRICS, {"run": "r", "phase": "train"}, {"loss": 7.0, "step": 99}, odd),
        ]
    )
    (one,) = found(store)
    assert len(one.time) == 3
    assert 7.0 not in {*one.units["memory", "forget"].ravel(), *one.update(("memory", "kernel"), "update_ratio")}
    assert 7.0 not in one.metrics["loss"]


def test_statistics_without_a_step_are_no_capture(store):
    fill(store, recorded(2))
    tags = {"run": "r", "phase": "train", "layer": "memory", "gate": "forget"}
    store.write([Point(GATE_STATS, tags, {"mean": 0.5}, moment(9))])
    (one,) = found(store)
    assert one.time.tolist() == [moment(0), moment(1)]
    store.write([Point(GATE_STATS, {**tags, "run": "no step"}, {"mean": 0.5}, moment(9))])
    assert found(store, "no step") == []


def test_a_field_of_a_newer_collector_parts_nothing(store):
    for k, capture in enumerate(recorded(5)):
        store.write(
            [
                Point(p.measurement, p.tags, {**p.fields, "kurtosis": k / 7, "sparse": k > 2}, p.time)
                if p.measurement == GATE_STATS
                else p
                for p in capture
            ]
        )
    (one,) = found(store)
    assert one.tags == {"run": "r", "phase": "train"}
    assert len(one.time) == 5
    assert len(one.metrics["loss"]) == 5


def test_a_metric_is_taken_at_the_step_and_not_at_the_time(store):
    fill(store, recorded(4, loss=False))
    tags = {"run": "r", "phase": "train"}
    for step, value in ((1, 5.0), (3, 6.0)):
        store.write([Point(TRAIN_METRICS, tags, {"loss": value, "step": step}, moment(step) + 10**8)])
    store.write([Point(TRAIN_METRICS, tags, {"note": "a text", "price": 1.0}, moment(2))])
    (one,) = found(store)
    np.testing.assert_array_equal(one.metrics["loss"], [math.nan, 5, math.nan, 6])
    assert set(one.metrics) == {"loss"}  # the price was of no step, and the text is no number


def test_a_metric_is_the_first_that_was_logged_once_the_capture_was_taken(store):
    fill(store, recorded(4, loss=False))
    tags = {"run": "r", "phase": "train"}
    logged = [  # step, seconds after its capture, loss
        (0, -0.2, 1.0),  # a capture that is taken when all of an epoch is logged
        (0, -0.1, 2.0),
        (1, 0.0, 3.0),
        (1, 0.1, 4.0),  # the epoch's mean, at its end
        (2, -0.1, 5.0),
        (2, 0.1, 6.0),
    ]
    for step, seconds, value in logged:
        store.write([Point(TRAIN_METRICS, tags, {"loss": value, "step": step}, moment(step) + int(seconds * SECOND))])
    (one,) = found(store)
    np.testing.assert_array_equal(one.metrics["loss"], [2, 3, 6, math.nan])


def test_units_that_hold_nothing_are_left_out(store):
    wide = recorded(3, layers=("wide",))
    narrow = recorded(3, layers=("narrow",), change=lambda k, gate, values: values[:, :, :2])
    fill(store, [a + b for a, b in zip(wide, narrow, strict=True)])
    (one,) = found(store)
    assert one.units["wide", "forget"].shape == (3, 4)
    assert one.units["narrow", "forget"].shape == (3, 2)


def test_a_gate_of_nothing_but_nan_is_captured(store):
    def broken(k, gate, values):
        return np.full_like(values, np.nan) if gate == "forget" else values

    fill(store, recorded(3, change=broken))
    (one,) = found(store)
    assert ("memory", "forget") not in one.units
    assert one.captured(("memory", "forget")).all()
    assert np.isnan(one.statistic(("memory", "forget"), "mean")).all()
    assert one.statistic(("memory", "forget"), "nan_count").tolist() == [40] * 3


@pytest.mark.parametrize("name", ['a "b" c', "../x", "λ/∅", "a,b=c", "_model", "None"])
def test_names_are_only_names(store, name):
    fill(store, recorded(2, run=name, layers=(name,), gates=(name,), params=(name,), tags={"market": name}))
    (one,) = found(store, name)
    assert one.tags == {"run": name, "phase": "train", "market": name}
    assert list(one.gates) == list(one.units) == list(one.updates) == [(name, name)]
    assert set(one.metrics) == {"loss", "learning_rate"}


def test_points_that_no_monitor_wrote_have_no_phase(store):
    tags = {"run": "r", "layer": "l", "gate": "forget"}
    store.write([Point(GATE_STATS, tags, {"mean": 0.1 * k, "step": k}, moment(k)) for k in range(3)])
    store.write([Point(TRAIN_METRICS, {"run": "r"}, {"loss": 1.0, "step": 2}, moment(2))])
    (one,) = found(store)
    assert one.tags == {"run": "r"}
    np.testing.assert_array_equal(one.metrics["loss"], [math.nan, math.nan, 1])
    assert one.units == one.updates == {}


def test_frames_without_tags_are_none():
    time = pd.to_datetime([1], utc=True)
    assert captures({}, *[pd.DataFrame({"time": time, "mean": [0.1]})] * 4) is None
