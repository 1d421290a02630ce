"""The monitoring loop as one function, and the example that uses it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from email import message_from_bytes

import pytest
from aiosmtpd.controller import Controller

from gatewatch.collector.config import MailSettings
from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import GATE_DERIVED, GATE_SCORES, GATE_STATS, RUNS, TRAIN_METRICS, Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.alerts import AlertManager
from gatewatch.jobs.loop import newest_metrics, watch_run
from gatewatch.jobs.scoring.scoring_pass import run_pass
from tests.conftest import ROOT, free_port
from tests.soak import captures, moment, wrong

TAGS = {"run": "r", "phase": "train"}
NEVER = 2**62  # a time that does not come


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


def fill(store, count, first=0):
    """Captures of long ago, of a run that goes on."""
    store.write(point for capture in captures("r", count, first) for point in capture)
    store.write([Point(RUNS, TAGS, {"event": "heartbeat", "step": first + count}, NEVER - 1)])


def end(store, step):
    store.write([Point(RUNS, TAGS, {"event": "completed", "step": step}, NEVER)])


def in_turn(*steps):
    """A wait in which the next thing happens."""
    left = list(steps)

    def sleep(seconds):
        left.pop(0)()

    return sleep


def test_a_run_is_watched_from_before_it_begins_until_its_last_capture_is_scored(store, tmp_path):
    page = tmp_path / "live.html"
    pages = []

    def see():
        pages.append(page.read_text() if page.exists() else None)

    sleep = in_turn(
        see,  # nothing has begun
        lambda: (fill(store, 40), see()),
        lambda: (see(), fill(store, 30, first=40)),
        lambda: (fill(store, 10, first=70), end(store, 80)),
    )
    watched = watch_run(store, "r", every=7, report=page, sleep=sleep)
    assert watched.turns == 5
    assert watched.scored >= len(store.read(GATE_SCORES)) > 0
    assert watched.failed is None
    assert pages[:2] == [None, None]
    assert '<meta http-equiv="refresh" content="7">' in pages[2]
    assert 'http-equiv="refresh"' not in page.read_text()
    assert len(store.read(GATE_DERIVED)) == len(store.read(GATE_STATS))
    assert wrong(store, tmp_path) == {}


def test_it_leaves_off_when_it_is_told_to(store):
    fill(store, 20)
    asked = []

    def until():
        asked.append(len(asked))
        return len(asked) == 3

    assert watch_run(store, "r", until=until, sleep=lambda seconds: None).turns == 3
    assert watch_run(store, "another", until=lambda: True, sleep=lambda seconds: None).turns == 1


def test_a_store_that_is_away_is_waited_for(influxd, monkeypatch):
    there = influxd.store()
    fill(there, 36)
    end(there, 36)
    away = influxd.store(there.destination["bucket"])
    monkeypatch.setattr(away.influxdb, "url", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(WriteUnavailable):
        away.runs()

    def comes_back():
        away.close()
        monkeypatch.undo()

    assert watch_run(away, "r", sleep=in_turn(comes_back)).turns == 2
    assert not there.read(GATE_SCORES).empty


class Inbox:
    """What a mail server does with what it is given: keeps it."""

    def __init__(self):
        self.subjects = []

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
        self.subjects.append(message_from_bytes(envelope.content)["Subject"])
        return "250 OK"


@pytest.fixture
def inbox():
    handler = Inbox()
    server = Controller(handler, hostname="127.0.0.1", port=free_port())
    server.start()
    handler.settings = MailSettings(host="127.0.0.1", port=server.port, security="none", sender="g@example.org")
    yield handler
    server.stop()


def metric(store, step, **fields):
    return store.write([Point(TRAIN_METRICS, TAGS, {**fields, "step": step}, moment(step))])


def test_what_begins_to_lie_beyond_a_threshold_is_mailed_once_each_time(store, inbox):
    fill(store, 20)
    metric(store, 19, loss=1.0)
    alerts = AlertManager("you@example.org", {"loss": 2.0, "saturation": 5.0}, mail=inbox.settings)
    sleep = in_turn(
        lambda: metric(store, 20, loss=3.0),
        lambda: metric(store, 21, loss=4.0),
        lambda: metric(store, 22, loss=1.0),
        lambda: metric(store, 23, loss=5.0),
        lambda: end(store, 24),
    )
    watch_run(store, "r", alerts=alerts, sleep=sleep)
    first, second = inbox.subjects
    assert "loss is 3, above 2" in first
    assert "loss is 5, above 2" in second


def test_a_mail_server_that_is_away_is_asked_again(store, inbox):
    fill(store, 20)
    metric(store, 19, loss=3.0)
    alerts = AlertManager("you@example.org", {"loss": 2.0}, mail=inbox.settings)
    alerts._mail = inbox.settings.model_copy(update={"port": free_port()})

    def comes_back():
        alerts._mail = inbox.settings

    watch_run(store, "r", alerts=alerts, sleep=in_turn(comes_back, lambda: end(store, 24)))
    assert len(inbox.subjects) == 1


def test_without_a_mail_server_it_says_so(store):
    fill(store, 20)
    metric(store, 19, loss=3.0)
    with pytest.raises(ConfigError, match=r"\[mail\]"):
        watch_run(store, "r", alerts=AlertManager("you@example.org", {"loss": 2.0}), sleep=lambda seconds: None)


def test_the_newest_metrics_are_the_largest_of_the_newest_moment(store):
    assert newest_metrics(store, "r") == {}
    fill(store, 40)
    metric(store, 38, loss=9.0, reward=1.0)
    metric(store, 39, loss=2.0)
    run_pass(store)
    found = newest_metrics(store, "r")
    scores = store.read(GATE_SCORES)
    assert found["loss"] == 2.0
    assert "reward" not in found
    assert found["anomaly_score"] == scores[scores["time"] == scores["time"].max()]["anomaly_score"].max()
    assert 0 <= found["saturation"] <= 1


def test_the_example(tmp_path):
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWATCH_", "INFLUXDB_"))}
    ours = {"PYTHONPATH": str(ROOT), "GATEWATCH_SPOOL": str(tmp_path / "spool")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/live_loop.py"), "--run", "live 1", "--epochs", "3", "--every", "1"],
        cwd=tmp_path,
        env=keep | ours,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search("gatewatch|warning|error", done.stderr, re.I), done.stderr
    first, last = done.stdout.splitlines()
    assert first == f"watching live 1: open {(tmp_path / 'live.html').as_uri()}"
    store = open_store(f"sqlite:///{tmp_path / 'gatewatch.db'}")
    scores = store.read(GATE_SCORES, run="live 1")
    assert re.fullmatch(r"[\d,]+ scores in \d+ turns, [\d,]+ of them above 1", last)
    assert len(scores) > 100
    assert store.runs()["state"].tolist() == ["completed"]
    assert len(store.read(GATE_DERIVED)) >= len(store.read(GATE_STATS)) > 200
    assert "live 1" in (tmp_path / "live.html").read_text()
