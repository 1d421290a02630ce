"""Bars that share a market time, and market time that goes back: every bar is stored, scored and shown."""

from __future__ import annotations

import base64
import logging
import os
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch

from gatewatch.collector.schema import (
    COLLECTOR_HEALTH,
    GATE_DERIVED,
    GATE_STATS,
    GATE_TIME,
    GATE_UNITS,
    TRAIN_METRICS,
    Point,
)
from gatewatch.collector.store import open_store
from gatewatch.collector.times import nanoseconds
from gatewatch.jobs.cli import main
from gatewatch.jobs.report.page import write_report
from gatewatch.jobs.scoring.scoring_pass import run_pass
from gatewatch.torch import GateMonitor
from tests.integration.test_report import charts, heatmaps
from tests.passes import assert_same, until_done

MEASUREMENTS = (GATE_STATS, GATE_UNITS, GATE_TIME, TRAIN_METRICS)
NEW_YEAR = datetime(2018, 1, 1)
BERLIN = ZoneInfo("Europe/Berlin")
DAYS = [NEW_YEAR + timedelta(days=day) for day in range(30)]
AUTUMN = datetime(2018, 10, 28, 0, 30, tzinfo=UTC)
"""In Berlin 2:30, half an hour before clocks are set back from 3:00 to 2:00."""
NIGHT = [AUTUMN + timedelta(minutes=5 * bar) for bar in range(60)]

BARS = {
    "symbols, bar by bar": ([day for day in DAYS[:20] for _ in range(3)], 40, "repeats: step 1 and step 2 are both at"),
    "symbols, one after the other": (DAYS[:20] * 3, 40, "goes back: step 20 is at 2018-01-20"),
    "two episodes": (DAYS * 2, 30, "goes back: step 30 is at 2018-01-30"),
    "a doubled row": ([*DAYS[:9], DAYS[8], *DAYS[9:]], 1, "repeats: step 9 and step 10 are both at 2018-01-09"),
    "dates of bars of an hour": (
        [(NEW_YEAR + timedelta(hours=bar)).date() for bar in range(60)],
        57,
        "repeats: step 1 and step 2 are both at 2018-01-01.",
    ),
    "a night in which the clock is set back": (
        [moment.astimezone(BERLIN).replace(tzinfo=None) for moment in NIGHT],
        12,
        "goes back: step 6 is at 2018-10-28T02:55, step 7 at 2018-10-28T02:00. ",
    ),
}


@pytest.fixture(params=["sqlite", "influxdb"])
def store(request, tmp_path):
    """Both stores."""
    if request.param == "influxdb":
        return request.getfixturevalue("influxd").store()
    return open_store(f"sqlite:///{tmp_path}/gatewatch.db")


@pytest.fixture
def place(tmp_path):
    """A store in a file."""
    return open_store(f"sqlite:///{tmp_path}/gatewatch.db")


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    return lambda: [record.message for record in caplog.records]


def walk(store, times, run="bt", first=1, checkpoint=None, **options):
    """A backtest over these bars, of which each has an input and a price of its own."""
    torch.manual_seed(0)
    module = torch.nn.LSTM(3, 4, batch_first=True)
    options = {"phase": "backtest", "every": 1, "log_dir": None, **options}
    with GateMonitor(module, store=store, run=run, **options) as monitor:
        if checkpoint is not None:
            monitor.load_state_dict({"step": checkpoint, "epoch": 0})
        for bar, time in enumerate(times[first - 1 :], first):
            monitor.step(torch.full((1, 2, 3), float(bar)), time=time, metrics={"price": float(bar)})


def forget(store, measurement=GATE_STATS, run="bt"):
    tags = {} if measurement == TRAIN_METRICS else {"gate": "forget"}
    return store.read(measurement, run=run, tags=tags).sort_values("step", kind="stable")


def moved(store, run="bt"):
    """By how many nanoseconds each step was moved is asserted by who knows its time; this is what was counted."""
    health = store.read(COLLECTOR_HEALTH, run=run)
    return int(health["moved_times"].max()) if "moved_times" in health else 0


@pytest.mark.parametrize("kind", BARS)
def test_every_bar_is_stored_once_at_its_market_time(store, said, kind):
    times, moves, warning = BARS[kind]
    walk(store, times)
    given = np.array([nanoseconds(time) for time in times])
    for measurement in MEASUREMENTS:
        stored = forget(store, measurement)
        assert stored["step"].tolist() == [*range(1, len(times) + 1)], measurement
        late = stored["time"].to_numpy("M8[ns]").astype(np.int64) - given
        assert late.min() == 0
        assert late.max() < 1000
        assert np.count_nonzero(late) == moves
    metrics = forget(store, TRAIN_METRICS)
    assert metrics["price"].tolist() == metrics["step"].tolist()
    assert moved(store) == moves
    (line,) = said()
    assert f"market time {warning}" in line
    assert "moved_times of collector_health; give each symbol" in line


def test_bars_that_share_a_time_are_read_in_the_order_of_their_steps(store):
    walk(store, BARS["symbols, bar by bar"][0])
    assert store.read(GATE_STATS, tags={"gate": "forget"})["step"].tolist() == [*range(1, 61)]


@pytest.mark.parametrize("zone", [UTC, BERLIN])
def test_times_with_a_zone_are_told_apart_when_the_clock_is_set_back(store, said, zone):
    walk(store, [moment.astimezone(zone) for moment in NIGHT])
    assert forget(store)["time"].tolist() == NIGHT
    assert moved(store) == 0
    assert not said()


@pytest.mark.parametrize(
    ("store", "machine", "kind"),
    [
        *(
            ("sqlite", machine, kind)
            for machine in ("the same", "another")
            for kind in ("symbols, bar by bar", "symbols, one after the other", "two episodes")
        ),
        ("influxdb", "another", "two episodes"),
    ],
    indirect=["store"],
)
def test_a_run_that_goes_on_meets_no_bar_that_was_stored_before(store, tmp_path, monkeypatch, said, kind, machine):
    times = BARS[kind][0]
    walk(store, times[:32], resume=True)
    if machine == "another":
        monkeypatch.setenv("GATEWATCH_SPOOL", str(tmp_path / "another machine"))
    walk(store, times, first=33, resume=True)
    walk(store, times, run="whole")
    resumed, whole = forget(store, TRAIN_METRICS), forget(store, TRAIN_METRICS, "whole")
    assert resumed["price"].tolist() == whole["price"].tolist() == [*range(1, 61)]
    apart = max(abs(resumed["time"].reset_index(drop=True) - whole["time"].reset_index(drop=True)))
    assert apart.value == (0 if machine == "the same" or kind == "symbols, bar by bar" else 1)  # nanosecond
    assert len(forget(store)) == 60
    assert not any("step 32 is at" in line for line in said())  # which was not the one with the newest time


def test_points_without_a_step_do_not_keep_a_run_from_going_on(place, tmp_path, monkeypatch):
    walk(place, DAYS[:3], resume=True)
    place.write([Point(TRAIN_METRICS, {"run": "bt", "phase": "backtest"}, {"epoch": 0}, nanoseconds(NEW_YEAR) - 1)])
    monkeypatch.setenv("GATEWATCH_SPOOL", str(tmp_path / "another machine"))
    walk(place, DAYS, first=4, resume=True)
    assert forget(place)["time"].tolist() == [moment.replace(tzinfo=UTC) for moment in DAYS]


def test_bars_that_are_walked_again_after_a_crash_are_not_stored_twice(store):
    times = BARS["symbols, bar by bar"][0]
    walk(store, times[:32], resume=True)
    walk(store, times, first=21, checkpoint=20, resume=True)
    walk(store, times, run="whole")
    assert forget(store)["time"].tolist() == forget(store, run="whole")["time"].tolist()
    assert forget(store, TRAIN_METRICS)["price"].tolist() == [*range(1, 61)]


def test_a_script_that_walks_all_bars_again_in_a_run_that_goes_on_loses_none(store, said):
    walk(store, DAYS, resume=True)
    walk(store, DAYS, resume=True)
    assert forget(store)["step"].tolist() == [*range(1, 61)]
    assert any("goes back: step 30 is at 2018-01-30, step 31 at 2018-01-01" in line for line in said())


def test_a_forked_process_says_that_its_bars_may_meet_those_of_the_other(store, said, tmp_path):
    with GateMonitor(torch.nn.LSTM(3, 4), None, store=store, run="bt", phase="backtest", every=1) as monitor:
        monitor.step(torch.ones(5, 1, 3), time=DAYS[0])
        child = os.fork()
        if child == 0:
            monitor.step(torch.ones(5, 1, 3), time=DAYS[1])
            monitor.step(torch.ones(5, 1, 3), time=DAYS[2])
            (tmp_path / "said").write_text("\n".join(said()))
            os._exit(0)
        os.waitpid(child, 0)
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert "run 'bt' was begun by the process that forked this one: where both give one market time" in line
    assert not said()


# What reads them.

LONG = [NEW_YEAR + timedelta(days=day) for day in range(50)]
WALKS = {"symbols, bar by bar": [day for day in LONG[:20] for _ in range(3)], "two episodes": LONG * 2}


@pytest.mark.parametrize("kind", WALKS)
def test_every_bar_is_scored_whenever_the_jobs_come(place, tmp_path, kind):
    times = WALKS[kind]
    at_once = open_store(f"sqlite:///{tmp_path}/at once.db")
    walk(at_once, times)
    (whole,) = run_pass(at_once)
    assert whole.captures == len(times)
    for cut in (len(times) // 2, len(times) * 3 // 4, len(times)):
        walk(place, times[:cut], first=forget(place)["step"].max() + 1 if place.exists() else 1, resume=True)
        until_done(place, state=tmp_path / "state", limit=17)
    assert len(place.read(GATE_DERIVED, run="bt", tags={"gate": "forget"}, fields=["window_s"])) == len(times)
    # How far a window is from what was fed before is counted anew by each process that goes on with a run.
    assert_same(place, at_once, old_causes=True, but="data")


def test_the_report_draws_bars_of_one_time_in_the_order_of_their_steps(place, tmp_path):
    walk(place, WALKS["symbols, bar by bar"])
    page = drawn(place, tmp_path)
    (price,) = charts(page, "price over market time")
    (line,) = price["data"]
    assert line["x"] == [f"{day:%Y-%m-%d}" for day in LONG[:20] for _ in range(3)]
    assert values(line["y"]) == [*range(1, 61)]
    assert "<dd>from 2018-01-01 to 2018-01-20 (19 d)</dd>" in page


def test_the_report_draws_what_was_walked_again_by_its_steps(place, tmp_path):
    walk(place, WALKS["two episodes"])
    run_pass(place)
    page = drawn(place, tmp_path)
    (price,) = charts(page, "price over step")
    assert values(price["data"][0]["x"]) == values(price["data"][0]["y"]) == [*range(1, 101)]
    (scores,) = charts(page, "Anomaly scores of l0")
    steps = values(scores["data"][0]["x"])
    assert steps == sorted(steps)
    assert len(steps) == 100 - 32
    (heatmap,) = heatmaps(page)
    frames = [float(step["label"]) for step in heatmap["layout"]["sliders"][0]["steps"]]
    assert frames == sorted(frames)
    assert frames[-1] == 99.5  # of two captures
    assert (
        "<dd>from 2018-01-01 to 2018-02-19 (49 d); time goes back, so what is drawn of backtest is by step</dd>" in page
    )


def test_an_hour_that_comes_again_leaves_a_report_in_market_time(place, tmp_path):
    day = [AUTUMN + timedelta(minutes=15 * bar) for bar in range(-96, 96)]
    walk(place, [moment.astimezone(BERLIN).replace(tzinfo=None) for moment in day])
    assert len(charts(drawn(place, tmp_path), "price over market time")) == 1


def test_a_copy_has_every_bar(place, tmp_path, capsys):
    walk(place, WALKS["two episodes"])
    copy = open_store(f"sqlite:///{tmp_path}/copy.db")
    assert main(["copy", "--from", place.url, "--to", copy.url, "--verify"]) == 0
    assert forget(copy)["time"].tolist() == forget(place)["time"].tolist()
    assert len(forget(copy)) == 100


def drawn(store, folder):
    write_report(store, "bt", folder / "report.html")
    return (folder / "report.html").read_text()


def values(array):
    """The numbers of a trace, which plotly stores as base64."""
    if isinstance(array, list):
        return array
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]).tolist()
