"""The small charts of the list of runs: nothing that stands out in a long run is lost in them."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.view.trend import SPANS, Line, Trend, merge, update_trend
from gatewatch.jobs.view.trends import Trends

SECOND = 10**9
START = 1_780_000_000 * SECOND


@pytest.fixture
def store(tmp_path):
    store = open_store(f"sqlite:///{tmp_path}/gatewatch.db")
    yield store
    store.close()


def scored(i, score, gate="forget", detector="consensus", phase="train", run="r"):
    tags = {"run": run, "phase": phase, "layer": "lstm", "gate": gate, "detector": detector}
    return Point("gate_scores", tags, {"anomaly_score": score, "step": 10 * i}, START + i * SECOND)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400),
    pieces=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    width=st.integers(1, 50),
)
def test_a_line_that_grows_piece_by_piece_keeps_the_extremes_in_few_spans(values, pieces, width):
    line, begin, k = Line(width), 0, 0
    while begin < len(values):
        part = np.array(values[begin : begin + pieces[k % len(pieces)]])
        places = np.arange(begin, begin + len(part), dtype=np.int64) * 7
        line = (
            merge(line, places // line.width * line.width, part, part)
            if not len(line.start)
            else _again(line, values, begin, len(part))
        )
        begin, k = begin + len(part), k + 1
    assert len(line.start) <= 2 * SPANS
    assert (line.low.min(), line.high.max()) == (min(values), max(values))
    assert (np.diff(line.start) > 0).all()
    assert (line.start % line.width == 0).all()
    for i, value in enumerate(values):
        span = np.searchsorted(line.start, i * 7, side="right") - 1
        assert line.low[span] <= value <= line.high[span]


def _again(line, values, begin, more):
    """What a store gives from the beginning of the line's last span on."""
    first = next(i for i in range(begin + 1) if i * 7 >= line.start[-1])
    part = np.array(values[first : begin + more])
    places = np.arange(first, begin + more, dtype=np.int64) * 7
    return merge(line, places // line.width * line.width, part, part)


def test_the_trend_names_the_worst_series_and_the_step_since_which_it_is_above_one(store):
    store.write([scored(i, 0.4, gate) for i in range(500) for gate in ("forget", "input")])
    store.write([scored(i, 3.5 if i == 400 else 2.0) for i in range(300, 500)])
    store.write([scored(i, 9.0, "cell", detector="robust") for i in range(500)])
    trend = update_trend(store, "r")
    worst = trend.worst
    assert (worst.score, worst.layer, worst.gate, worst.phase) == (3.5, "lstm", "forget", "train")
    assert (worst.since, worst.since_time) == (3000, START + 300 * SECOND)
    assert trend.now == 2.0
    assert trend.scores.high.max() == 3.5


def test_what_is_new_is_added_without_reading_what_was(store, monkeypatch):
    store.write([scored(i, 0.4) for i in range(500)] + [scored(100, 0.9)])
    first = update_trend(store, "r")
    store.write([scored(i, 0.5) for i in range(500, 900)] + [scored(777, 5.0)])
    starts = []
    read = type(store).extremes
    monkeypatch.setattr(type(store), "extremes", lambda self, *a, **k: starts.append(k["start"]) or read(self, *a, **k))
    second = update_trend(store, "r", first)
    assert starts[0] >= START + 480 * SECOND
    assert (second.worst.score, second.worst.since) == (5.0, 7770)
    assert second.scores.high.max() == 5.0
    assert 0.9 in second.scores.high
    assert len(second.scores.start) <= 2 * SPANS


def test_a_run_without_scores_has_the_loss_alone(store):
    tags = {"run": "r", "phase": "train"}
    store.write(
        [
            Point("train_metrics", tags, {"accuracy": 0.5, "policy/loss": 1.0 + i, "step": i}, START + i)
            for i in range(9)
        ]
    )
    trend = update_trend(store, "r")
    assert trend.worst is None
    assert (trend.loss_name, trend.loss.low.min(), trend.loss.high.max()) == ("policy/loss", 1.0, 9.0)
    nothing = update_trend(store, "absent")
    assert (nothing.worst, nothing.now, nothing.loss_name, len(nothing.loss.start)) == (None, None, "", 0)


def test_the_newest_scores_are_those_of_the_phase_that_was_scored_last(store):
    store.write(
        [scored(5, 7.0, phase="train"), scored(9, 0.2, phase="backtest"), scored(9, 0.3, "input", phase="backtest")]
    )
    assert update_trend(store, "r").now == 0.3


def test_a_trend_that_cannot_be_read_does_not_keep_the_others_waiting():
    done, bad = threading.Event(), []

    def update(run, last):
        if run == "bad":
            bad.append(run)
            raise ValueError("odd points")
        if run == "last":
            done.set()
        return Trend(now=1.0)

    trends = Trends(update)
    trends.start()
    trends.want({"bad": "1", "good": "1", "last": "1"}, [])
    assert done.wait(10)
    deadline = time.monotonic() + 10
    while trends.known()[1] and time.monotonic() < deadline:
        time.sleep(0.01)
    known, waiting = trends.known()
    assert (set(known), waiting, bad) == ({"good", "last"}, 0, ["bad"])
    trends.want({"good": "1"}, [])
    assert set(trends.known()[0]) == {"good"}
    trends.close()
