"""The data detector: a feed that moved is said, and takes the blame for what it explains."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gatewatch.collector.schema import GATE_SCORES, GATE_STATS_FIELDS
from gatewatch.jobs.scoring.captures import Captures
from gatewatch.jobs.scoring.detectors.base import Scores
from gatewatch.jobs.scoring.detectors.data import REACH, feed_scores
from gatewatch.jobs.scoring.detectors.rules import scores_beside_other_data
from gatewatch.jobs.scoring.scoring_state import ScoringState
from tests.declared_fields import undeclared

GATE = ("memory", "forget")
COUNT, STRIKE = 100, 70


def captures(distance=None, *, count=COUNT, jump=False, probe_loss=None):
    """Captures of one gate, whose statistics may jump at `STRIKE`, with these distances of the feed."""
    random, step = np.random.default_rng(0), np.arange(count)
    table = np.full((count, len(GATE_STATS_FIELDS)), np.nan)
    table[:, GATE_STATS_FIELDS.index("step")] = step
    for name, level in {"mean": 0.6, "std": 0.1, "entropy": 3.0, "saturated_low": 0.1, "saturated_high": 0.1}.items():
        table[:, GATE_STATS_FIELDS.index(name)] = level + 0.001 * random.normal(size=count)
    table[:, GATE_STATS_FIELDS.index("zero_crossing_rate")] = 0.2
    if jump:
        table[STRIKE:, GATE_STATS_FIELDS.index("mean")] += 0.15
        table[STRIKE:, GATE_STATS_FIELDS.index("std")] += 0.1
        table[STRIKE:, GATE_STATS_FIELDS.index("entropy")] += 0.8
    return Captures(
        {"run": "r", "phase": "train"},
        step * 10**9,
        step.astype(float),
        {GATE: table},
        {},
        {},
        {} if probe_loss is None else {"probe_loss": np.asarray(probe_loss)},
        {} if distance is None else {"distance": np.asarray(distance)},
    )


def moved(count=COUNT):
    """Distances of a feed that moves at `STRIKE`: 0.15 where 0.05 above the usual is the limit."""
    return np.where(np.arange(count) < STRIKE, 0.0, 0.15)


def scored(given):
    """Detector → layer and gate → step → score."""
    scores = {}
    for point in ScoringState().advance(given, len(given.time)):
        assert point.measurement == GATE_SCORES
        assert undeclared(point) is None
        series = point.tags["layer"], point.tags["gate"]
        scores.setdefault(point.tags["detector"], {}).setdefault(series, {})[point.fields["step"]] = point.fields
    return scores


def alarms(scores, series=GATE):
    return {step for step, fields in scores["consensus"][series].items() if fields["anomalous"]}


def test_the_limit_is_a_rise_of_a_twentieth_where_the_distances_hardly_move():
    scores = feed_scores(captures([0.0] * 8 + [0.025, 0.05, 0.15, math.nan, -0.02], count=13))
    assert np.isnan(scores[[*range(8), 11]]).all()
    assert scores[[8, 9, 10, 12]] == pytest.approx([0.5, 1.0, 3.0, 0.0])


def test_the_limit_is_six_deviations_where_they_move():
    # median 0.2, median absolute deviation 0.1: the limit is 0.2 + 6 · 0.14826
    scores = feed_scores(captures([0.1, 0.3] * 4 + [0.2, 0.2 + 3 * 0.14826], count=10))
    assert scores[9] == pytest.approx(0.5)


def test_a_feed_that_moved_is_a_notice_that_says_where_it_lies():
    scores = scored(captures(moved()))
    first = scores["data"]["_data", "feed"][STRIKE]
    assert (first["source"], first["anomalous"]) == ("data", 1)
    assert first["anomaly_score"] == first["why_feed_moved"] == pytest.approx(3.0)
    assert not scores["data"]["_data", "feed"][STRIKE - 1]["anomalous"]
    assert ("_data", "feed") not in scores["consensus"]


def test_without_a_feed_there_is_no_data_detector():
    assert "data" not in scored(captures())


def test_what_changes_with_the_feed_is_no_alarm_of_the_network():
    alone, with_feed = scored(captures(jump=True)), scored(captures(moved(), jump=True))
    assert alarms(alone) >= {STRIKE + 2, STRIKE + 3, STRIKE + 4}
    assert not alarms(with_feed)
    assert with_feed["robust"] == alone["robust"]


def test_what_changes_while_the_feed_is_calm_is_an_alarm():
    assert alarms(scored(captures(np.zeros(COUNT), jump=True))) == alarms(scored(captures(jump=True))) != set()


def test_a_change_of_the_feed_explains_for_a_while():
    early = np.zeros(COUNT)
    early[STRIKE - REACH - 3] = 0.15
    assert alarms(scored(captures(early, jump=True)))


def test_a_probe_that_gets_worse_too_is_an_alarm_of_the_network():
    loss = 1 + 0.001 * np.random.default_rng(1).normal(size=COUNT)
    calm = captures(moved(), jump=True, probe_loss=loss)
    worse = captures(moved(), jump=True, probe_loss=np.where(np.arange(COUNT) < STRIKE, loss, 2.0))
    assert not alarms(scored(calm))
    assert alarms(scored(worse))
    assert alarms(scored(worse), ("_model", "probe_loss"))
    better = captures(probe_loss=np.where(np.arange(COUNT) < STRIKE, loss, 0.1))
    assert not alarms(scored(better), ("_model", "probe_loss"))


def test_updates_beyond_what_the_rate_explains_are_no_alarm_where_the_feed_explains_them():
    kernel = ("memory", "kernel")
    by_rule = {"hasty": np.array([0.0, 1.5, 1.5, 1.5]), "leap": np.array([0.2, 0.2, 3.0, 0.2])}
    rules = Scores({kernel: np.array([0.2, 1.5, 3.0, 1.5])}, {kernel: by_rule})
    explained = np.array([True, True, True, False])
    assert scores_beside_other_data(rules, explained)[kernel].tolist() == [0.2, 1.0, 3.0, 1.5]


@pytest.mark.parametrize("cuts", [(1, 99), (50, 71, 72), (69, 70, 90)])
def test_pieces_of_a_run_give_the_same(cuts):
    whole = captures(moved(), jump=True)
    expected = ScoringState().advance(whole, COUNT)
    state, found, begin = ScoringState(), [], 0
    for end in (*cuts, COUNT):
        first = max(0, begin - max(each.look_back for each in state.detectors))
        found += state.advance(whole.part(first, end), end - begin)
        begin = end

    def key(point):
        return point.time, *point.tags.values()

    assert sorted(found, key=key) == sorted(expected, key=key)
