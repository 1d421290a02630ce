"""`gatewatch jobs` as a service: what it does, what it says, what it survives and how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from email import message_from_bytes

import pytest
from aiosmtpd.controller import Controller

from gatewatch.collector.config import JobsSettings, Settings
from gatewatch.collector.schema import (
    ALERT_EVENTS,
    GATE_DERIVED,
    GATE_SCORES,
    GATE_STATS,
    JOBS_HEALTH,
    RUNS,
    TRAIN_METRICS,
    Point,
)
from gatewatch.collector.store import open_store
from gatewatch.jobs.cli import main
from gatewatch.jobs.scoring.scoring_pass import run_pass
from gatewatch.jobs.service import scheduler
from gatewatch.jobs.service.scheduler import Service
from tests.conftest import free_port
from tests.servers import Front, holding
from tests.soak import captures, covered, service, until, wrong

AWAY, BACK = r"\d\d:\d\d:\d\d .*; trying on", r"\d\d:\d\d:\d\d the store is back after \d+.*"


def fill(store, count, first=0, run="r"):
    store.write(point for capture in captures(run, count, first) for point in capture)


def lines(running):
    return running.warned.splitlines()


@pytest.fixture(autouse=True)
def state(monkeypatch, tmp_path):
    monkeypatch.setenv("GATEWATCH_STATE", str(tmp_path / "state"))


@pytest.fixture
def store(tmp_path):
    return open_store(f"sqlite:///{tmp_path / 'points.db'}")


@pytest.fixture
def influx(influxd, monkeypatch):
    store = influxd.store()
    for name in ("org", "bucket"):
        monkeypatch.setenv(f"INFLUXDB_V2_{name.upper()}", store.destination[name])
    monkeypatch.setenv("INFLUXDB_V2_TOKEN", influxd.token)
    return store


class TestProcess:
    def test_what_it_does_is_said_where_it_is_asked_to(self, store, tmp_path):
        fill(store, 40)
        with service(tmp_path / "s", "--store", store.url, "--verbose") as running:
            until(lambda: lines(running), "it says something")
            time.sleep(2)  # some turns that have nothing to do
            assert running.end(signal.SIGINT) == 0
        *done, stopped = lines(running)
        assert 1 <= len(done) <= 2  # the newest capture is taken once it is known to be whole
        for line in done:
            assert re.fullmatch(r"\d\d:\d\d:\d\d r: \d+ derived, \d+ scored, \d+ above 1 in \d.*", line)
        assert stopped.endswith(" stopped")

    def test_a_file_that_is_not_there_is_waited_for_and_not_made(self, store, tmp_path):
        with service(tmp_path / "s", "--store", store.url) as running:
            until(lambda: lines(running), "it says what it waits for")
            time.sleep(1.5)
            assert not store.path.exists()
            fill(store, 40)
            until(lambda: covered(store, "r", 40), "the captures are scored")
            assert running.end() == 0
        first, second = lines(running)
        assert re.fullmatch(AWAY, first)
        assert "points.db does not exist yet" in first
        assert re.fullmatch(BACK, second)

    def test_a_server_that_is_away_at_first_and_later_is_said_once_each_time(self, own_influxd, tmp_path, monkeypatch):
        store = own_influxd.store()
        about = {"ORG": own_influxd.org, "BUCKET": store.destination["bucket"], "TOKEN": own_influxd.token}
        environment = {f"INFLUXDB_V2_{name}": value for name, value in about.items()}
        own_influxd.stop()
        with service(tmp_path / "s", "--store", store.url, environment=environment) as running:
            until(lambda: len(lines(running)) == 1, "it is away")
            time.sleep(2)
            own_influxd.start()
            until(lambda: len(lines(running)) == 2, "it is back")
            fill(store, 40)
            until(lambda: covered(store, "r", 40), "the captures are scored")
            own_influxd.stop()
            until(lambda: len(lines(running)) == 3, "it is away again")
            time.sleep(2)
            own_influxd.start()
            until(lambda: len(lines(running)) == 4, "it is back again")
            assert running.end() == 0
        for line, wanted in zip(lines(running), [AWAY, BACK] * 2, strict=True):
            assert re.fullmatch(wanted, line)

    def test_a_second_signal_ends_it_at_once(self, influx, influxd, tmp_path):
        front = Front(influxd.url)
        try:
            with service(tmp_path / "s", "--store", front.url) as running:
                until(lambda: not influx.read(JOBS_HEALTH).empty, "it works")
                front.answer = holding
                until(lambda: front.held, "it hangs in a call")
                running.process.send_signal(signal.SIGTERM)
                time.sleep(1)
                assert running.process.poll() is None  # it waits for what is going on
                begin = time.monotonic()
                assert running.end(signal.SIGTERM) == -signal.SIGTERM
                assert time.monotonic() - begin < 5
        finally:
            front.close()
        assert running.warned == ""

    def test_an_alert_is_mailed_and_a_mail_server_that_is_away_is_said_once(self, store, tmp_path):
        inbox = []

        class Handler:
            async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
                inbox.append(message_from_bytes(envelope.content)["Subject"])
                return "250 OK"

        server = Controller(Handler(), hostname="127.0.0.1", port=free_port())
        file = tmp_path / "g.toml"
        file.write_text(
            f"""
            [mail]
            host = "127.0.0.1"
            port = {server.port}
            security = "none"
            sender = "g@example.org"
            to = ["you@example.org"]
            [alerts]
            group_wait_seconds = 0.0
            [[alerts.rules]]
            name = "too_much_loss"
            measurement = "train_metrics"
            field = "loss"
            above = 2.0
            """
        )
        tags = {"run": "r", "phase": "train"}
        now = time.time_ns()
        store.write([Point(RUNS, tags, {"event": "started", "step": 0}, now)])
        store.write([Point(TRAIN_METRICS, tags, {"loss": 3.0, "step": 1}, now)])
        environment = {"GATEWATCH_CONFIG": str(file)}
        with service(tmp_path / "s", "--store", store.url, environment=environment) as running:
            until(lambda: lines(running), "the mail waits")
            time.sleep(2)
            server.start()
            try:
                until(lambda: inbox, "the mail has arrived", 120)
                assert running.end() == 0
            finally:
                server.stop()
        assert inbox[0] == "[gatewatch] FIRING 1: r"
        assert all(subject.endswith(": jobs alerts") for subject in inbox[1:])  # that it could not send mails
        assert re.fullmatch(r"\d\d:\d\d:\d\d mails wait: 127.0.0.1:\d+.*\n", running.warned)

    def test_rules_are_evaluated_where_no_mail_is_set_up(self, store, tmp_path):
        tags = {"run": "r", "phase": "train"}
        now = time.time_ns()
        store.write([Point(RUNS, tags, {"event": "started", "step": 0}, now)])
        gate = tags | {"layer": "memory", "gate": "forget"}
        store.write([Point(GATE_STATS, gate, {"nan_count": 3, "inf_count": 0, "step": 1}, now)])
        with service(tmp_path / "s", "--store", store.url) as running:
            until(lambda: not store.read(ALERT_EVENTS).empty, "the alert is recorded")
            assert running.end() == 0
        (event,) = store.read(ALERT_EVENTS).to_dict("records")
        assert (event["rule"], event["state"], event["value"]) == ("gate_not_finite", "firing", 3.0)
        assert not event["delivered"]
        assert running.warned == ""

    def test_one_alone_and_two_at_once_write_what_one_pass_writes(self, store, tmp_path):
        fill(store, 50)
        fill(store, 80, run="another")
        shared = {"GATEWATCH_STATE": str(tmp_path / "state")}
        arguments = ("--store", store.url)
        with service(tmp_path / "a", *arguments, environment=shared) as first:
            until(lambda: covered(store, "r", 50), "what was there is scored")
            with service(tmp_path / "b", *arguments, environment=shared) as second:
                for k in range(50, 70):
                    fill(store, 1, first=k)
                    time.sleep(0.2)
                until(lambda: covered(store, "r", 70) and covered(store, "another", 80), "all is scored")
                assert first.end(signal.SIGTERM) == second.end(signal.SIGINT) == 0
        assert re.fullmatch(rf"gatewatch jobs: {store.url} every 1 s, executor local, state in \S+; .*\n", first.said)
        assert first.warned == second.warned == ""
        run_pass(store)
        assert wrong(store, tmp_path) == {}


class TestWrong:
    """What is wrong from the beginning is one line and status 2."""

    def said(self, capsys, *arguments):
        assert main(["jobs", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"gatewatch: [^\n]+\n", err)
        return err

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["--interval", "0"], "--interval"),
            (["--interval", "nan"], "--interval"),
            (["--workers", "0"], "--workers"),
            (["--executor", "ray"], "--executor"),
            (["--run", "r"], "--run needs --once"),
            (["--json"], "--json needs --once"),
            (["--once", "--interval", "3"], "--interval"),
            (["--once", "--verbose"], "--verbose"),
            (["--store", "ftp://x"], "ftp://x"),
        ],
    )
    def test_an_option(self, capsys, arguments, named):
        assert named in self.said(capsys, *arguments)

    def test_the_configuration(self, capsys, tmp_path, monkeypatch):
        file = tmp_path / "g.toml"
        file.write_text("[jobs]\ninterval_seconds = 0.0\n")
        monkeypatch.setenv("GATEWATCH_CONFIG", str(file))
        assert "jobs.interval_seconds" in self.said(capsys)

    def test_the_folder_for_state(self, capsys, store, tmp_path, monkeypatch):
        (tmp_path / "a file").touch()
        monkeypatch.setenv("GATEWATCH_STATE", str(tmp_path / "a file" / "state"))
        said = self.said(capsys, "--store", store.url)
        assert "a file" in said
        assert "GATEWATCH_STATE" in said

    def test_a_token_that_is_missing_or_refused(self, capsys, influx, monkeypatch):
        monkeypatch.setenv("INFLUXDB_V2_TOKEN", "wrong")
        assert "INFLUXDB_V2_TOKEN" in self.said(capsys, "--store", influx.url)
        monkeypatch.delenv("INFLUXDB_V2_TOKEN")
        assert "INFLUXDB_V2_TOKEN" in self.said(capsys, "--store", influx.url)


class Running:
    """A service in a thread of the test."""

    def __init__(self, store, folder, evaluate=None, **settings):
        self.lines = []
        self.told = []
        jobs = JobsSettings(interval_seconds=1, **settings)
        self.service = Service(
            store.destination,
            Settings(jobs=jobs),
            folder,
            evaluate=evaluate,
            tell=self.told.append,
            warn=self.lines.append,
        )
        self.drained = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        self.drained = self.service.run()

    def end(self):
        self.service.stop()
        self._thread.join(30)
        return self.drained


class TestInside:
    @pytest.fixture
    def begin(self, tmp_path):
        begun = []

        def begin(store, **options):
            begun.append(Running(store, tmp_path / "checkpoints", **options))
            return begun[-1]

        yield begin
        for running in begun:
            running.end()

    def test_how_it_fares_is_counted(self, store, begin):
        fill(store, 60)
        begin(store)
        until(lambda: len(store.read(JOBS_HEALTH)) >= 3, "it has said so for some turns")
        health = store.read(JOBS_HEALTH)
        scores, derived = store.read(GATE_SCORES), store.read(GATE_DERIVED)
        last = health.iloc[-1]
        assert set(health["job"]) == {"score"}
        assert last["windows"] == len(scores) > 0
        assert last["points_written"] >= len(scores) + len(derived)
        assert last["rows_read"] >= len(store.read(GATE_STATS)) - 2
        assert last["failures"] == 0
        assert (health["duration_s"] > 0).all()
        assert (health["lag_s"] >= health["duration_s"]).all()
        assert health["time"].is_monotonic_increasing

    def test_the_runs_are_shared_by_the_workers(self, store, begin, tmp_path):
        for run in "abcdef":
            fill(store, 40, run=run)
        begin(store, workers=3)
        until(lambda: all(covered(store, run, 40) for run in "abcdef"), "all are scored")
        until(lambda: len(set(store.read(JOBS_HEALTH).get("job", ()))) == 3, "each says how it fares")
        assert set(store.read(JOBS_HEALTH)["job"]) == {"score-1", "score-2", "score-3"}
        run_pass(store)
        assert wrong(store, tmp_path) == {}

    def test_what_hangs_is_said_and_does_not_keep_it_from_ending(self, influx, influxd, begin, monkeypatch):
        for name, seconds in (("STUCK_SECONDS", 0.5), ("STUCK_INTERVALS", 0.5), ("DRAIN_SECONDS", 1.0)):
            monkeypatch.setattr(scheduler, name, seconds)
        front = Front(influxd.url)
        try:
            monkeypatch.setenv("GATEWATCH_STORE", front.url)
            running = begin(open_store())
            until(lambda: not influx.read(JOBS_HEALTH).empty, "it works")
            running.lines.clear()  # the first turn loads scikit-learn, which may take as long
            front.answer = holding
            until(lambda: running.lines, "it says that a turn hangs")
            assert re.fullmatch(r"score has been busy.* for \d.* s: it hangs, or .*", running.lines[0])
            begin_end = time.monotonic()
            assert running.end() is False
            assert time.monotonic() - begin_end < 10
            assert len(running.lines) == 1
        finally:
            front.close()

    def test_an_empty_store(self, influx, begin):
        running = begin(influx)
        until(lambda: len(influx.read(JOBS_HEALTH)) > 2, "it says how it fares")
        assert running.end() is True
        assert running.lines == running.told == []
        health = influx.read(JOBS_HEALTH)
        assert set(health["job"]) == {"score"}
        assert health[["failures", "windows", "points_written"]].to_numpy().max() == 0

    def test_a_run_that_fails_is_said_once_and_once_that_it_is_over(self, store, begin, monkeypatch):
        fill(store, 40)
        turns = []

        def failing(*arguments, **options):  # no points are known that a pass fails of: so it is made to
            passes = run_pass(*arguments, **options)
            turns.append(len(passes))
            return [replace(done, failed="ValueError: odd") for done in passes] if len(turns) in (2, 3) else passes

        monkeypatch.setattr("gatewatch.jobs.scoring.scoring_pass.run_pass", failing)
        running = begin(store)
        until(lambda: len(running.lines) == 2, "it has failed, and works again")
        assert running.lines[0] == "run 'r' failed: ValueError: odd"
        assert running.lines[1].startswith("run 'r' is scored again after ")
        until(lambda: store.read(JOBS_HEALTH)["failures"].max() == 2, "it is counted")

    def test_alerts_are_evaluated_and_what_goes_wrong_there_is_said_once(self, store, begin):
        fill(store, 40)
        given = []

        def evaluate(store):
            given.append(len(store.read(GATE_STATS)))
            if len(given) in (2, 3):
                raise RuntimeError("no \x1b[2J such\nthing")

        running = begin(store, evaluate=evaluate)
        until(lambda: len(given) >= 5, "the alerts are evaluated")
        assert set(given) == {80}
        until(lambda: len(running.lines) == 2, "it is over")
        assert running.lines[0] == r"alerts failed: RuntimeError: no \x1b[2J such thing"
        assert running.lines[1].startswith("alerts works again after ")
        until(lambda: "alerts" in set(store.read(JOBS_HEALTH)["job"]), "their health is told")
        health = store.read(JOBS_HEALTH, tags={"job": "alerts"})
        assert health["failures"].max() == 2


LOOP_ENDS = """
import sys
from gatewatch.jobs.cli import main
from gatewatch.jobs.service.intervals import IntervalScheduler

start_due, looks = IntervalScheduler.start_due, []

def failing(scheduler):
    looks.append(1)
    if len(looks) == 5:
        raise MemoryError
    start_due(scheduler)

IntervalScheduler.start_due = failing
sys.exit(main(["jobs", "--store", sys.argv[1]]))
"""


def test_what_ends_the_loop_ends_the_service_in_one_line(store):
    store.check()
    ended = subprocess.run(
        [sys.executable, "-c", LOOP_ENDS, store.url], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert re.fullmatch(r"gatewatch: MemoryError: [^\n]*\n", ended.stderr)
