"""Runs of which something stood still: what moves then is scored, rounding is not, and no value is too large."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from gatewatch import open_store
from gatewatch.collector.capture import gate_points
from gatewatch.collector.schema import LAYER_UPDATES, TRAIN_METRICS, Point
from gatewatch.jobs.scoring.captures import MEASUREMENTS, captures
from gatewatch.jobs.scoring.scoring_state import ScoringState
from tests.recorded import Captured, moment

pytestmark = pytest.mark.filterwarnings("error")

TAGS = {"run": "r", "phase": "train"}
CAPTURES, CHANGE = 80, 50
UPDATES = {"gradient_norm": 0.1, "weight_norm": 3.0, "update_ratio": 1e-3}


def noise(k, shape=()):
    return np.random.default_rng(k).normal(size=shape)


def healthy(k):
    return np.clip(0.4 + 0.1 * noise(k, (2, 5, 4)), 0, 1)


@pytest.fixture
def alarms(tmp_path):
    return partial(_alarms, tmp_path)


def _alarms(folder, gate=lambda k: np.full((2, 5, 4), 0.3), updates=lambda k: UPDATES, loss=lambda k: 0.5, rate=1e-3):
    """The captures at which the consensus alarms, by gate or parameter. Each argument is what is captured at k."""
    store = open_store(f"sqlite:///{folder}/points.db")
    points = []
    for k in range(CAPTURES):
        fields = {name: float(value) for name, value in updates(k).items()} | {"nan_count": 0, "inf_count": 0}
        points += [
            Point(LAYER_UPDATES, {**TAGS, "layer": "memory", "param": param}, {**fields, "step": k}, moment(k))
            for param in ("kernel", "recurrent")
        ]
        points += gate_points({"memory": Captured({"forget": gate(k)})}, TAGS, moment(k), k, 0)
        logged = {"loss": float(loss(k)), "step": k} | ({} if rate is None else {"learning_rate": rate})
        points.append(Point(TRAIN_METRICS, TAGS, logged, moment(k)))
    store.write(points)
    run = captures(TAGS, *(store.read(name, prefix_tags=True) for name in MEASUREMENTS))
    store.close()
    scored = ScoringState().advance(run, CAPTURES)
    assert all(np.isfinite(value) for point in scored for value in point.fields.values() if isinstance(value, float))
    found = {}
    for point in scored:
        if point.tags["detector"] == "consensus" and point.fields["anomalous"]:
            found.setdefault(point.tags["gate"], []).append((point.time - moment(0)) // 10**9)
    return found


def changed(before, after):
    """What is captured: one value up to the change, and what a function of the capture gives from then on."""
    return lambda k: before if k < CHANGE else after(k)


GATES = [0.0, 0.05, 0.3, 0.5, 0.9, 1.0]
"""Where a gate may stand still: at the edges of bins, at the centre, and at the limits of saturation."""


@pytest.mark.parametrize("level", GATES)
class TestAGateThatStoodStill:
    @pytest.mark.parametrize("size", [1e-8, 1e-7, 1e-6])
    def test_rounding_raises_no_alarm(self, alarms, level, size):
        still = np.full((2, 5, 4), level)
        assert alarms(changed(still, lambda k: np.clip(still + size * noise(k, still.shape), 0, 1))) == {}

    def test_a_move_does(self, alarms, level):
        still = np.full((2, 5, 4), level)
        found = alarms(changed(still, lambda k: still + (0.1 if level < 0.5 else -0.1)))
        assert found["forget"][0] == CHANGE + 1

    def test_units_that_part_do(self, alarms, level):
        still = np.full((2, 5, 4), level)
        apart = np.where(np.arange(4) == 1, 0.2 if level < 0.5 else -0.2, 0.0)
        assert alarms(changed(still, lambda k: still + apart))["forget"][0] == CHANGE + 1


class TestUpdatesThatStoodStill:
    @pytest.mark.parametrize("size", [1e-7, 1e-6])
    def test_rounding_raises_no_alarm(self, alarms, size):
        assert (
            alarms(updates=changed(UPDATES, lambda k: {n: v * (1 + size * noise(k)) for n, v in UPDATES.items()})) == {}
        )

    @pytest.mark.parametrize("size", [1e-13, 1e-10, 1e-9, 1e-8])
    def test_a_gradient_from_nothing_to_what_moves_nothing_raises_none(self, alarms, size):
        began = UPDATES | {"gradient_norm": 0.0}
        assert alarms(healthy, changed(began, lambda k: began | {"gradient_norm": size * abs(noise(k))})) == {}

    @pytest.mark.parametrize("size", [1e-10, 1e-9, 1e-8])
    def test_nor_do_weights_that_were_frozen(self, alarms, size):
        began = UPDATES | {"update_ratio": 0.0}
        found = alarms(healthy, changed(began, lambda k: began | {"update_ratio": size * abs(noise(k))}), rate=None)
        assert found == {name: [*range(32, CHANGE)] for name in ("kernel", "recurrent")}  # because they were

    @pytest.mark.parametrize("size", [1e-6, 1e-3, 10.0, 1e20, 1e300])
    def test_a_gradient_where_there_was_none_does(self, alarms, size):
        began = UPDATES | {"gradient_norm": 0.0}
        found = alarms(healthy, changed(began, lambda k: began | {"gradient_norm": size}))
        assert {name: captures_[0] for name, captures_ in found.items()} == dict.fromkeys(("kernel", "recurrent"), 51)

    @pytest.mark.parametrize("size", [1.0, 1e20, 1e300])
    def test_weights_that_leap_do(self, alarms, size):
        found = alarms(healthy, changed(UPDATES, lambda k: UPDATES | {"update_ratio": size}))
        assert found["kernel"][0] == CHANGE + 1


class TestALossThatStoodStill:
    @pytest.mark.parametrize("level", [0.0, 0.5, -3.0, 1e-6, 1e6])
    def test_rounding_raises_no_alarm(self, alarms, level):
        size = 1e-7 * abs(level) or 1e-9
        assert alarms(loss=changed(level, lambda k: level + size * noise(k))) == {}

    @pytest.mark.parametrize("level", [0.0, 0.5, -3.0, 1e-6, 1e6])
    def test_a_move_does(self, alarms, level):
        found = alarms(loss=changed(level, lambda k: level + (abs(level) / 4 or 1e-3)))
        assert found["loss"][0] == CHANGE + 1

    @pytest.mark.parametrize("level", [0.0, 0.5, 1e30])
    @pytest.mark.parametrize("size", [1e40, -1e300, 1.7e308])
    def test_huge_ones_do(self, alarms, level, size):
        assert alarms(loss=changed(level, lambda k: size))["loss"][0] <= CHANGE + 2


@pytest.mark.parametrize("size", [1e20, 1e300, 1.7e308])
def test_huge_activations_do(alarms, size):
    assert alarms(changed(np.full((2, 5, 4), 0.3), lambda k: np.full((2, 5, 4), size)))["forget"][0] == CHANGE + 1


def test_a_signal_without_any_past_has_no_score_until_it_has_one(alarms):
    without = {name: value for name, value in UPDATES.items() if name != "gradient_norm"}
    assert alarms(updates=changed(without, lambda k: UPDATES | {"gradient_norm": 10.0})) == {}
    found = alarms(updates=changed(without, lambda k: UPDATES | {"gradient_norm": 10.0 if k < 70 else 1e6}))
    assert found["kernel"][0] == 71
