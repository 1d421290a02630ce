"""Violated checks as they are stored: at once, with their sentence and source, and the same however a run is cut."""

from __future__ import annotations

import pytest

from gatewatch import open_store
from gatewatch.collector.schema import GATE_SCORES, LAYER_UPDATES, Point
from gatewatch.jobs.findings.explanations import in_words
from gatewatch.jobs.findings.outliers import causes
from tests.passes import assert_same, only, scores
from tests.recorded import end, recorded


def with_moments(captures, dropped):
    """Every parameter has second moments that sum to 1; after `dropped` they are 0.005, as 5 steps leave them."""
    for k, points in enumerate(captures):
        made = []
        for point in points:
            fields = dict(point.fields)
            if point.measurement == LAYER_UPDATES:
                fields |= {"moment_sum": 0.005 if k == dropped else 1.0, "moment_decay": 0.999}
                if k:
                    fields |= {"travel_steps": 5, "travel": 0.01}
            made.append(Point(point.measurement, point.tags, fields, point.time))
        yield made


@pytest.fixture(scope="module")
def captured():
    return list(with_moments(recorded(40), dropped=3))


@pytest.fixture(scope="module")
def store(tmp_path_factory, captured):
    """40 captures; at the fourth, within the warm-up, the moments of all parameters are gone."""
    opened = open_store(f"sqlite:///{tmp_path_factory.mktemp('checks') / 'points.db'}")
    opened.write(point for points in captured for point in points)
    end(opened)
    only(opened)
    return opened


def test_a_violated_check_is_an_alarm_at_once(store):
    alarms = scores(store, detector="consensus")
    alarms = alarms[alarms["anomalous"] == 1]
    assert alarms["step"].unique().tolist() == [3]
    assert sorted(alarms["gate"]) == ["bias", "kernel", "recurrent"]
    assert alarms["why_moments_fell"].tolist() == [2.0, 2.0, 2.0]
    assert set(alarms["source"]) == {"optimizer"}
    assert causes(alarms) == [
        "the optimizer's second moments fell further than they decay: was its state dropped or exchanged?"
    ]
    assert in_words({"moments_fell": 2.0})[0].endswith("(moments_fell)")


def test_checks_score_from_the_second_capture_on_and_the_others_after_their_warm_up(store):
    kernel = scores(store, layer="memory", gate="kernel")
    assert kernel.groupby("detector")["step"].min().to_dict() == {
        "checks": 1,
        "consensus": 3,
        "robust": 32,
        "rules": 32,
    }
    assert kernel[kernel["detector"] == "checks"]["step"].tolist() == list(range(1, 40))


def test_every_score_has_a_source(store):
    every = store.read(GATE_SCORES)
    of_network = every[every["source"] == "network"]
    assert every["source"].notna().all()
    assert {"isolation_forest", "robust", "rules", "consensus"} <= set(of_network["detector"])


def test_a_run_in_pieces_gets_the_same_scores(store, captured, tmp_path):
    other = open_store(f"sqlite:///{tmp_path / 'points.db'}")
    for begin in range(0, 40, 7):
        other.write(point for points in captured[begin : begin + 7] for point in points)
        only(other, state=tmp_path / "state")
    end(other)
    only(other, state=tmp_path / "state")
    assert_same(other, store)
