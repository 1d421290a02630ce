"""The time of day jumps, by hours or by years: what the jobs wait for does not. The clocks are passed in."""

from __future__ import annotations

import threading
import time
from email.message import EmailMessage

import pytest
from aiosmtpd.controller import Controller

from gatewatch.collector.config import AlertSettings, MailSettings, Settings
from gatewatch.collector.schema import Point
from gatewatch.collector.store import open_store
from gatewatch.jobs.alerts import evaluate
from gatewatch.jobs.alerts.outbox import Outbox
from gatewatch.jobs.alerts.state import State, StateFiles
from gatewatch.jobs.loop import RunWatch
from gatewatch.jobs.service.intervals import IntervalScheduler
from tests.conftest import free_port

S = 10**9
BEGUN = 1_790_000_000 * S
HOUR, YEARS = 3600, 20 * 365 * 86_400
RUN = {"run": "r", "phase": "train"}


class Clock:
    """A clock that the test sets."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def __call__(self):
        return self.seconds


class Turns:
    """A job that is done at once, or when it is released."""

    def __init__(self):
        self.count = 0
        self.released = threading.Event()
        self.released.set()

    def __call__(self):
        self.released.wait(30)
        self.count += 1


class TestIntervals:
    @pytest.fixture(autouse=True)
    def scheduler(self):
        self.clock, self.missed, self.turns = Clock(100.0), [], Turns()
        self.scheduler = IntervalScheduler(lambda *about: self.missed.append(about), self.clock)
        self.scheduler.add("score", 15.0, self.turns)
        yield
        self.turns.released.set()

    def at(self, seconds):
        self.clock.seconds = seconds
        self.scheduler.start_due()
        if self.turns.released.is_set():
            for thread in threading.enumerate():
                if thread.name == "score":
                    thread.join(30)

    def test_a_job_starts_at_once_and_then_at_each_interval(self):
        for seconds, count in ((100.0, 1), (114.9, 1), (115.0, 2), (115.1, 2), (131.0, 3), (144.9, 3), (145.0, 4)):
            self.at(seconds)
            assert self.turns.count == count, seconds
        assert self.missed == []

    def test_what_has_passed_meanwhile_is_one_turn(self):
        self.at(100.0)
        self.at(100.0 + YEARS)  # a suspended machine, on a system whose monotonic clock counts that
        assert self.turns.count == 2
        self.at(100.0 + YEARS + 14.0)
        self.at(100.0 + YEARS + 15.0)
        assert self.turns.count == 3
        assert self.missed == []

    def test_a_turn_that_has_not_ended_misses_the_next_once_an_interval(self):
        self.turns.released.clear()
        for seconds in (100.0, 115.0, 120.0, 130.0):
            self.at(seconds)
        assert self.missed == [("score", None)] * 2
        self.turns.released.set()
        self.at(140.0)
        self.at(145.0)
        assert self.turns.count == 2

    def test_a_thread_that_the_system_refuses_is_named_and_tried_again(self):
        before = threading.stack_size(2**46)
        try:
            self.at(100.0)
        finally:
            threading.stack_size(before)
        assert self.missed == [("score", "can't start new thread")]
        self.at(115.0)
        assert self.turns.count == 1


class Watched:
    """The alerts of a store, evaluated at moments by the machine's clock."""

    def __init__(self, folder, **alerts):
        self.store = open_store(f"sqlite:///{folder / 'gatewatch.db'}")
        self.folder = folder
        self.settings = Settings(alerts=AlertSettings(**alerts), mail=mail_settings(free_port()))
        self.reads = 0
        find = self.store.find

        def counted(*arguments, **options):
            self.reads += 1
            return find(*arguments, **options)

        self.store.find = counted

    def sees(self, seconds, points=()):
        """The rules that fire by then."""
        self.store.write(points)
        evaluate(self.store, self.settings, self.folder, at(seconds))
        state = StateFiles(self.folder / "alerts").state()
        return {entry.rule for entry in state.entries.values() if entry.firing.until is None}

    @property
    def mails(self):
        return len(Outbox(self.folder / "alerts").waiting)


def mail_settings(port):
    return MailSettings(host="127.0.0.1", port=port, security="none", sender="g@example.org", to=["y@example.org"])


def at(seconds):
    return BEGUN + int(seconds * S)


def beat(seconds, event="heartbeat"):
    return Point("runs", RUN, {"event": event, "step": int(seconds)}, at(seconds))


def broken(seconds):
    return Point("gate_stats", RUN | {"layer": "l", "gate": "g"}, {"nan_count": 1, "inf_count": 0}, at(seconds))


class TestAlerts:
    @pytest.mark.parametrize("back", [HOUR, YEARS])
    def test_a_death_is_noticed_after_the_clock_was_set_back(self, tmp_path, back):
        watched = Watched(tmp_path)
        for seconds in range(0, 300, 30):
            assert watched.sees(seconds, [beat(seconds)]) == set()
        for seconds in range(300, 420, 30):
            assert watched.sees(seconds - back) == set()
        assert watched.sees(435 - back) == {"run_died"}

    @pytest.mark.parametrize("back", [HOUR, YEARS])
    def test_mails_do_not_wait_until_the_clock_has_caught_up(self, tmp_path, back):
        watched = Watched(tmp_path, group_wait_seconds=30.0, group_interval_seconds=300.0)
        watched.sees(0, [beat(0)])
        assert watched.sees(10, [broken(5)]) == {"gate_not_finite"}
        assert watched.mails == 0
        watched.sees(20 - back)
        assert watched.mails == 1
        watched.sees(50 - back)
        assert watched.mails == 1  # and once is enough

    def test_a_jump_by_years_is_read_in_few_pieces_and_alerts_go_on(self, tmp_path):
        watched = Watched(tmp_path, group_wait_seconds=0.0)
        watched.sees(0, [beat(0, "started")])
        watched.sees(30, [beat(30)])
        watched.reads = 0
        assert watched.sees(YEARS + 60, [beat(YEARS + 59), broken(45), broken(YEARS + 58)]) == {"gate_not_finite"}
        assert watched.reads < 1_000
        firing = watched.store.read("alert_events")
        assert firing["state"].tolist() == ["firing"]

    @pytest.mark.parametrize("back", [HOUR, YEARS])
    def test_a_mail_is_tried_again_after_the_clock_was_set_back(self, tmp_path, back):
        class Handler:
            async def handle_DATA(self, server, session, envelope):  # noqa: N802 - aiosmtpd's name
                return "250 OK"

        port = free_port()
        settings = MailSettings(
            host="127.0.0.1", port=port, security="none", sender="g@example.org", to=["y@example.org"]
        )
        outbox, state, message = Outbox(tmp_path), State(), EmailMessage()
        message["From"], message["Message-ID"] = "g@example.org", "<1@example.org>"
        outbox.put(message, settings.to, [], at(0))
        assert outbox.send(settings, state, at(0))[0] == 0
        assert state.not_before == at(15)
        server = Controller(Handler(), hostname="127.0.0.1", port=port)
        server.start()
        try:
            assert outbox.send(settings, state, at(14))[0] == 0
            assert outbox.send(settings, state, at(14 - back))[0] == 1
        finally:
            server.stop()


class TestRunWatch:
    """The clock of this process is right; the points of the run come from one that jumps."""

    @pytest.fixture(autouse=True)
    def look(self, tmp_path):

        self.store, self.clock = open_store(f"sqlite:///{tmp_path / 'gatewatch.db'}"), Clock()
        self.now = time.time_ns()
        self.watch = RunWatch(self.store, self.clock)

    def state(self, seconds, beat=None):
        if beat is not None:
            self.store.write([Point("runs", RUN, {"event": "heartbeat", "step": 1}, self.now + int(beat * S))])
        self.clock.seconds = seconds
        return self.watch.state("r")

    def test_a_run_lives_while_it_says_so_whatever_the_time_of_day(self):
        assert self.state(0) is None
        assert self.state(1, beat=0) == "live"
        assert self.state(100, beat=YEARS) == "live"
        assert self.state(200) == "live"
        assert self.state(221) == "died"  # though its last sign of life lies 20 years ahead
        assert self.state(230, beat=YEARS + 30) == "live"

    def test_a_run_that_was_silent_before_is_dead_at_the_first_look(self):
        assert self.state(0, beat=-500) == "died"
        assert self.state(10, beat=-490) == "live"  # but late points are a sign of life
