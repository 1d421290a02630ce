"""The scores of a recorded run stay what they are: a change of them is a decision, not an accident."""

from __future__ import annotations

import pytest

from gatewatch import open_store
from gatewatch.collector.schema import GATE_DERIVED, LAYER_UPDATES, Point
from tests.passes import only, scores
from tests.recorded import end, recorded, shut


def faulty(captures):
    """The kernel's gradient is 1,000 times as large from capture 40 to 44, and its weights stand still from 55 on."""
    for k, points in enumerate(captures):
        for point in points:
            fields = dict(point.fields)
            if point.measurement == LAYER_UPDATES and point.tags["param"] == "kernel":
                fields["gradient_norm"] *= 1000 if 40 <= k < 45 else 1
                fields["update_ratio"] *= k < 55
            yield Point(point.measurement, point.tags, fields, point.time)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """70 captures of a network whose forget gate is shut from capture 60 on, and their scores."""
    opened = open_store(f"sqlite:///{tmp_path_factory.mktemp('recorded') / 'points.db'}")
    opened.write(faulty(recorded(70, layers=("one", "two"), change=shut(60))))
    end(opened)
    only(opened)
    return opened


@pytest.mark.parametrize(
    ("detector", "layer", "gate", "expected"),
    [
        ("isolation_forest", "one", "forget", {32: 0.6116, 50: 0.5869, 61: 1.2305, 65: 1.2235}),
        ("robust", "one", "forget", {32: 0.2325, 50: 0.2075, 61: 5.9958, 65: 5.1025}),
        ("robust", "two", "kernel", {32: 0.1940, 42: 1.4179, 57: 7.1110, 65: 5.1076}),
        ("rules", "one", "forget", {32: 0.0, 50: 0.0, 61: 2.5724, 65: 2.5915}),
        ("rules", "two", "kernel", {32: 0.0, 42: 1.4944, 57: 2.0, 65: 2.0}),
        ("consensus", "one", "forget", {32: 0.2906, 50: 0.2593, 61: 5.9958, 65: 5.1025}),
        ("consensus", "two", "kernel", {32: 0.1940, 42: 1.4944, 57: 7.1110, 65: 5.1076}),
    ],
)
def test_the_scores_of_a_recorded_run(store, detector, layer, gate, expected):
    frame = scores(store, detector=detector, layer=layer, gate=gate).set_index("step")["anomaly_score"]
    assert frame[[*expected]].to_dict() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_how_many_scores_are_anomalous_and_why(store):
    frame = scores(store)
    assert frame.groupby("detector").size().to_dict() == {
        "consensus": 342,
        "isolation_forest": 152,
        "robust": 342,
        "rules": 342,
    }
    assert frame.groupby("detector")["anomalous"].sum().to_dict() == {
        "consensus": 66,
        "isolation_forest": 18,
        "robust": 66,
        "rules": 54,
    }
    causes = frame[frame["detector"] == "consensus"].filter(like="why_").notna().sum()
    assert causes[["why_collapsed", "why_saturated", "why_frozen", "why_exploded"]].tolist() == [18, 18, 28, 8]


@pytest.mark.parametrize(
    ("gate", "capture", "expected"),
    [
        ("forget", 10, {"drift": 0.2556, "effective_rank": 3.7126, "entropy_trend": -0.0112, "window_s": 10.0}),
        ("forget", 40, {"memory_timescale": 1.2919, "input_forget_coupling": -0.2969, "frozen_units": 0.0}),
        ("forget", 65, {"memory_timescale": 0.1915, "effective_rank": 1.6499, "saturation_change": 1.0}),
        ("kernel", 42, {"gradient_ratio": 955.2587, "gradient_state": 1.0, "update_band": 0.0}),
        ("kernel", 60, {"gradient_ratio": 0.8352, "gradient_state": 0.0, "update_band": -1.0}),
    ],
)
def test_the_derived_metrics_of_a_recorded_run(store, gate, capture, expected):
    frame = store.read(GATE_DERIVED, tags={"layer": "one", "gate": gate})
    assert frame.iloc[capture][[*expected]].to_dict() == pytest.approx(expected, rel=1e-3, abs=1e-4)
