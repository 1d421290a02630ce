"""The queue and its thread: what is put arrives once and in order, or waits, or is counted; nobody waits too long."""

from __future__ import annotations

import logging
import math
import os
import random
import shutil
import threading
import time
from typing import ClassVar

import pytest

from gatewatch.collector.errors import WriteRejected, WriteUnavailable
from gatewatch.collector.schema import Point
from gatewatch.collector.spool.inspect import pending
from gatewatch.collector.spool.queue import BATCH_POINTS, Spool
from gatewatch.collector.spool.shipper import Shipper
from gatewatch.collector.store.sqlite.store import SqliteStore


def points(*numbers):
    return [Point("m", {"run": "r"}, {"f": float(n)}, n) for n in numbers]


class Unwell:
    """A store that answers its first writes with the errors it was given, and can be held up in a write.

    It stands in for a server at the moments that a real one cannot be brought to: an error at exactly this write, a
    write that hangs for as long as the test likes.
    """

    url = "unwell://"

    def __init__(self, *errors):
        self.destination = {"url": self.url}
        self.errors, self.batches, self.tries = list(errors), [], 0
        self.busy, self.free = threading.Event(), threading.Event()
        self.free.set()

    @property
    def numbers(self):
        return [number for batch in self.batches for number in batch]

    def hold(self):
        self.free.clear()

    def write_lines(self, lines):
        self.tries += 1
        self.busy.set()
        assert self.free.wait(30)
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append([int(line.rpartition(b" ")[2]) for line in lines.splitlines()])


@pytest.fixture
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def ship(root):
    """Make shippers; at the end none of their threads runs."""
    before, made = set(threading.enumerate()), []

    def make(store, max_bytes=2**20, **options):
        made.append((Shipper(store, Spool(root, store.destination, max_bytes), **options), store))
        return made[-1][0]

    yield make
    for shipper, store in made:
        if isinstance(store, Unwell):
            store.free.set()
            store.errors.clear()
        shipper.close(0)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), "a thread is left running"


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    return lambda text: [record.message for record in caplog.records if text in record.message]


def stored(store):
    return store.read("m")["f"].tolist()


def counts(shipper):
    """Points shipped, rejected, dropped, waiting."""
    return (shipper.delivery.shipped, shipper.delivery.rejected, shipper.spool.dropped, shipper.spool.waiting)


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_what_is_put_arrives_in_order(tmp_path, ship):
    store = SqliteStore(tmp_path / "g.db")
    shipper = ship(store)
    for n in range(0, 300, 3):
        shipper.put(points(n, n + 1, n + 2))
    assert shipper.flush(30)
    assert stored(store) == [float(n) for n in range(300)]
    assert counts(shipper) == (300, 0, 0, 0)


def test_it_arrives_without_anybody_asking(tmp_path, ship):
    store = Unwell()
    ship(store).put(points(1))
    until(lambda: store.numbers == [1])


def test_many_points_go_in_batches_and_in_order(ship):
    store = Unwell()
    shipper = ship(store)
    store.hold()
    shipper.put(points(-1))
    assert store.busy.wait(10)
    shipper.put(points(*range(2 * BATCH_POINTS + 1)))
    store.free.set()
    assert shipper.flush(30)
    assert [len(batch) for batch in store.batches] == [1, BATCH_POINTS, BATCH_POINTS, 1]
    assert store.numbers == [-1, *range(2 * BATCH_POINTS + 1)]


@pytest.mark.parametrize("error", [WriteUnavailable("away"), WriteUnavailable("away", 0.01), RuntimeError("broken")])
def test_after_a_failure_everything_arrives_once_and_in_order(ship, said, error):
    store = Unwell(error, error)
    shipper = ship(store)
    store.hold()
    shipper.put(points(1, 2))
    assert store.busy.wait(10)
    shipper.put(points(3, 4))
    store.free.set()
    assert shipper.flush(30)
    assert store.numbers == [1, 2, 3, 4]
    assert counts(shipper) == (4, 0, 0, 0)
    assert len(said("takes no points now")) == len(said("takes points again")) == 1


def test_an_outage_draws_nothing_from_the_random_numbers_of_the_training(ship):
    store = Unwell(WriteUnavailable("away"), WriteUnavailable("away"))
    shipper = ship(store)
    before = random.getstate()
    shipper.put(points(1))
    assert shipper.flush(30)
    assert store.tries == 3
    assert random.getstate() == before


def test_a_store_of_the_users_own_is_given_a_list_of_points(ship):
    class Own:
        url = "own://"
        destination: ClassVar = {"url": url}
        stored: ClassVar = []

        def write(self, points):
            self.stored += [point.time for point in points[: len(points)]]

    shipper = ship(Own())
    shipper.put(points(1, 2))
    assert shipper.flush(30)
    assert Own.stored == [1, 2]
    assert counts(shipper) == (2, 0, 0, 0)


def test_every_outage_is_said(ship, said):
    store = Unwell(WriteUnavailable("away"))
    shipper = ship(store)
    shipper.put(points(1))
    assert shipper.flush(30)
    store.errors.append(WriteUnavailable("away"))
    shipper.put(points(2))
    assert shipper.flush(30)
    assert store.numbers == [1, 2]
    assert len(said("takes no points now")) == len(said("takes points again")) == 2


def test_a_real_store_that_is_missing_at_first_gets_everything_when_it_is_there(tmp_path, ship, said):
    store = SqliteStore(tmp_path / "later" / "g.db")
    shipper = ship(store)
    shipper.put(points(1, 2, 3))
    assert not shipper.flush(0.05)
    assert shipper.spool.waiting == 3
    (tmp_path / "later").mkdir()
    assert shipper.flush(30)
    assert stored(store) == [1, 2, 3]
    assert len(said("takes no points now")) == 1


def test_wrong_points_are_counted_and_the_others_stored(tmp_path, ship, said):
    store = SqliteStore(tmp_path / "g.db")
    shipper = ship(store)
    wrong = [
        Point("m", {}, {"f": math.nan}, 1),
        Point("m", {}, {"f": "another type"}, 2),
        Point("m", {}, {}, 3),
        Point("", {}, {"f": 1.0}, 4),
    ]
    shipper.put([*points(10), *wrong, *points(11)])
    assert shipper.flush(30)
    shipper.put([*wrong, *points(12)])
    assert shipper.flush(30)
    assert stored(store) == [10, 11, 12]
    assert counts(shipper) == (3, 8, 0, 0)
    assert len(said("refused")) == 1


def test_a_store_that_refuses_more_than_it_got_does_not_make_the_count_negative(ship):
    shipper = ship(Unwell(WriteRejected(["wrong"], count=7)))
    shipper.put(points(1, 2))
    assert shipper.flush(30)
    assert (shipper.delivery.shipped, shipper.delivery.rejected) == (0, 7)


def test_a_refusal_after_an_outage_is_an_answer(ship, said):
    shipper = ship(Unwell(WriteUnavailable("away"), WriteRejected(["wrong"])))
    shipper.put(points(1, 2))
    assert shipper.flush(30)
    assert len(said("takes points again")) == 1
    assert (shipper.delivery.shipped, shipper.delivery.rejected) == (1, 1)


def test_a_full_disk_queue_lets_the_oldest_go_and_says_so_once(ship, said):
    store = Unwell()
    shipper = ship(store, max_bytes=4000)
    store.hold()
    shipper.put(points(0))
    assert store.busy.wait(10)
    for n in range(1, 400):
        shipper.put(points(n))
    assert shipper.spool.dropped > 0
    assert len(said("the oldest points are dropped")) == 1
    store.free.set()
    assert shipper.flush(30)
    assert store.numbers[-1] == 399
    assert shipper.delivery.shipped + shipper.spool.dropped == 400


def test_what_the_disk_does_not_take_waits_in_memory(root, tmp_path, ship, said):
    """A folder that turns into a file stands in for a disk that takes nothing."""
    store = Unwell()
    shipper = ship(store)
    shipper.put(points(1))
    assert shipper.flush(30)
    shutil.rmtree(root)
    root.write_text("")
    store.hold()
    shipper.put(points(2))
    shipper.put(points(3))
    assert shipper.spool.waiting == 2
    store.free.set()
    assert shipper.flush(30)
    assert store.numbers == [1, 2, 3]
    assert len(said("stay in memory")) == 1
    root.unlink()


def test_memory_has_a_bound_too_and_what_goes_is_counted(root, ship, said, monkeypatch):
    monkeypatch.setattr("gatewatch.collector.spool.queue.MEMORY_BYTES", 100)
    store = Unwell(*[WriteUnavailable("away", retry_after=3600)])
    shipper = ship(store)
    shipper.put(points(0))
    until(lambda: store.tries)
    shutil.rmtree(root)
    root.write_text("")
    for n in range(1, 50):
        shipper.put(points(n))
    assert shipper.spool.dropped > 30
    assert len(said("the oldest points are dropped")) == 1
    shipper.close(0)
    assert len(said("are lost")) == 1
    root.unlink()


def test_what_disk_and_store_do_not_take_goes_to_the_disk_when_it_has_room_again(root, ship, said):
    store = Unwell(WriteUnavailable("away", retry_after=3600))
    shipper = ship(store)
    shipper.put(points(0))
    until(lambda: store.tries)
    shutil.rmtree(root)
    root.write_text("")
    shipper.put(points(1))
    root.unlink()
    shipper.close(0)
    assert not said("are lost")
    assert sum(entry.points for entry in pending(root)) == 1


def test_a_flush_gives_up_at_its_deadline_and_loses_nothing(ship):
    store = Unwell()
    shipper = ship(store)
    assert shipper.flush(0)
    store.hold()
    shipper.put(points(1))
    assert not shipper.flush(0.01)
    assert shipper.spool.waiting == 1
    store.free.set()
    assert shipper.flush(30)
    assert store.numbers == [1]


def test_a_flush_does_not_wait_out_the_pause_after_a_failure(ship, monkeypatch):
    monkeypatch.setattr("gatewatch.collector.spool.delivery.FIRST_WAIT", 3600)
    store = Unwell(WriteUnavailable("away"))
    shipper = ship(store)
    shipper.put(points(1))
    assert store.busy.wait(10)
    assert shipper.flush(20)
    assert store.numbers == [1]


def test_a_flush_during_a_write_that_fails_is_not_forgotten(ship, monkeypatch):
    monkeypatch.setattr("gatewatch.collector.spool.delivery.FIRST_WAIT", 3600)

    class Flushed(Unwell):
        def write_lines(self, lines):
            if self.errors:
                shipper.flush(0)
            super().write_lines(lines)
            arrived.set()

    arrived = threading.Event()
    store = Flushed(WriteUnavailable("away"))
    shipper = ship(store)
    shipper.put(points(1))
    assert arrived.wait(20)


def test_a_server_that_says_when_to_come_back_is_left_alone_until_then(ship):
    store = Unwell(WriteUnavailable("busy", retry_after=1.5))
    shipper = ship(store)
    shipper.put(points(1))
    until(lambda: store.tries == 1)
    begin = time.monotonic()
    while time.monotonic() - begin < 1.0:
        assert not shipper.flush(0.1)
        assert store.tries == 1
    assert shipper.flush(20)
    assert store.numbers == [1]


def test_a_close_does_not_wait_for_a_server_that_comes_back_after_the_deadline(ship, said):
    store = Unwell(WriteUnavailable("busy", retry_after=3600))
    shipper = ship(store)
    shipper.put(points(1))
    until(lambda: store.tries == 1)
    begin = time.monotonic()
    shipper.close(30)
    assert time.monotonic() - begin < 15
    assert len(said("points wait in")) == 1


@pytest.mark.parametrize("slow", [False, True])
def test_what_somebody_must_mend_is_not_tried_as_often(ship, monkeypatch, slow):
    monkeypatch.setattr("gatewatch.collector.spool.delivery.FIRST_WAIT", 0.01)
    monkeypatch.setattr("gatewatch.collector.spool.delivery.LONGEST_WAIT", 0.01)
    store = Unwell(*[WriteUnavailable("401", slow=slow) for _ in range(1000)])
    ship(store).put(points(1))
    until(lambda: store.tries)
    time.sleep(1.0)
    assert (store.tries == 1) is slow


class Picky(Unwell):
    """A store that fails at a line with a 7 in its time, and always where it is away; it stands in for a bug."""

    def __init__(self, error):
        super().__init__()
        self.error, self.away = error, False

    def write_lines(self, lines):
        if self.away or any(b"7" in line.rpartition(b" ")[2] for line in lines.splitlines()):
            self.tries += 1
            raise self.error
        super().write_lines(lines)


@pytest.fixture
def quick(monkeypatch):
    for name, seconds in {"FIRST_WAIT": 0.01, "LONGEST_WAIT": 0.01, "ROUND_WAIT": 0.02}.items():
        monkeypatch.setattr(f"gatewatch.collector.spool.delivery.{name}", seconds)
    monkeypatch.setattr("gatewatch.collector.spool.shipper.LINGER_SECONDS", 0.01)


def test_a_line_that_breaks_the_store_is_put_aside_and_does_not_stop_the_others(root, quick, ship, said):
    store = Picky(RuntimeError("a bug"))
    shipper = ship(store)
    shipper.put(points(*range(20)))
    assert shipper.flush(20)
    assert set(store.numbers) == {*range(20)} - {7, 17}
    assert counts(shipper) == (18, 2, 0, 0)
    (entry,) = pending(root)
    assert (entry.rejected, entry.reason) == (2, "RuntimeError: a bug")
    assert len(said("RuntimeError: a bug")) == 1


@pytest.mark.parametrize("error", [RuntimeError("a bug"), WriteUnavailable("500", answered=True)])
def test_an_outage_puts_nothing_aside_however_long_and_whatever_the_store_answers(quick, ship, error):
    store = Picky(error)
    shipper = ship(store)
    shipper.put(points(1))
    assert shipper.flush(20)
    store.away = True
    for n in (2, 3, 4):
        shipper.put(points(n))
        until(lambda before=store.tries: store.tries > before + 30)
    store.away = False
    assert shipper.flush(20)
    assert {*store.numbers} == {1, 2, 3, 4}
    assert counts(shipper) == (4, 0, 0, 0)


@pytest.mark.parametrize("error", [WriteUnavailable("no connection"), OSError(111, "refused")])
def test_what_no_answer_came_to_is_never_put_aside(quick, ship, error):
    store = Picky(error)
    shipper = ship(store)
    shipper.put(points(1))
    assert shipper.flush(20)
    shipper.put(points(7, 8))
    until(lambda: store.tries > 30)
    assert counts(shipper) == (1, 0, 0, 2)


def test_of_two_servers_behind_one_address_a_sick_one_puts_nothing_aside(quick, ship):
    class Pair(Unwell):
        def write_lines(self, lines):
            self.tries += 1
            if self.sick and self.tries % 2:
                raise WriteUnavailable("500", answered=True)
            super().write_lines(lines)

        sick = False

    store = Pair()
    shipper = ship(store)
    store.sick = True
    for n in range(0, 300, 3):
        shipper.put(points(n, n + 1, n + 2))
    assert shipper.flush(30)
    assert {*store.numbers} == {*range(300)}
    assert shipper.delivery.rejected == 0


def test_what_the_disk_does_not_quarantine_waits_and_holds_up_nothing(root, quick, ship, said):
    """A folder in the place of the file stands in for a disk that takes nothing."""
    store = Picky(WriteRejected(["wrong"], lines=[(b"m,run=r f=7 7", "wrong")]))
    shipper = ship(store)
    shipper.put(points(1))
    assert shipper.flush(20)
    blocked = shipper.spool.folder / "rejected.lp"
    blocked.mkdir()
    shipper.put(points(7))
    until(lambda: said("refused wait there"))
    shipper.put(points(8))
    until(lambda: store.numbers == [1, 8])
    assert (shipper.delivery.rejected, shipper.spool.waiting) == (0, 1)
    blocked.rmdir()
    assert shipper.flush(20)
    assert counts(shipper) == (2, 1, 0, 0)
    assert b"\nm,run=r f=7 7\n" in blocked.read_bytes()


def test_refused_lines_are_kept_with_their_reason(root, ship):
    store = Unwell(WriteRejected(["too old"], lines=[(b"m,run=r f=1 1", "too old")]))
    shipper = ship(store)
    shipper.put(points(1, 2))
    assert shipper.flush(20)
    (entry,) = pending(root)
    assert (entry.rejected, entry.reason, shipper.delivery.rejected, shipper.delivery.shipped) == (1, "too old", 1, 1)
    assert b"\nm,run=r f=1 1\n" in entry.rejected_file.read_bytes()


def test_a_close_gives_up_at_its_deadline_and_leaves_the_rest_for_the_next(ship, said):
    store = Unwell()
    shipper = ship(store)
    store.hold()
    shipper.put(points(1))
    assert store.busy.wait(10)
    shipper.put(points(2, 3))
    shipper.close(0.01)
    assert len(said("3 points wait in")) == 1
    store.free.set()
    until(lambda: store.numbers == [1])
    after = ship(store)
    assert after.flush(20)
    until(lambda: store.numbers == [1, 1, 2, 3])
    assert after.spool.dropped == 0


def test_a_close_during_a_write_that_fails_ends_the_thread(ship):
    store = Unwell(WriteUnavailable("away", retry_after=3600))
    shipper = ship(store)
    store.hold()
    shipper.put(points(1))
    assert store.busy.wait(10)
    shipper.close(0.01)
    store.free.set()


def test_a_close_ships_what_is_left_and_ends_the_thread(tmp_path, ship, said):
    before = threading.active_count()
    store = SqliteStore(tmp_path / "g.db")
    shipper = ship(store)
    assert threading.active_count() == before + 1
    shipper.put(points(*range(1000)))
    shipper.close(30)
    assert threading.active_count() == before
    assert len(stored(store)) == shipper.delivery.shipped == 1000
    assert not said("")


def test_after_a_close_nothing_is_taken_and_a_second_close_does_nothing(tmp_path, ship, said):
    store = SqliteStore(tmp_path / "g.db")
    shipper = ship(store)
    shipper.put(points(1))
    shipper.close(30)
    shipper.put(points(2))
    shipper.close(30)
    assert shipper.flush(0)
    assert stored(store) == [1]
    assert counts(shipper) == (1, 0, 0, 0)
    assert not said("")


def test_many_threads_may_put(tmp_path, ship):
    store = SqliteStore(tmp_path / "g.db")
    shipper = ship(store)
    threads = [
        threading.Thread(target=lambda k=k: [shipper.put(points(n)) for n in range(k, 800, 8)]) for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shipper.flush(30)
    assert stored(store) == [float(n) for n in range(800)]
    assert shipper.delivery.shipped == 800


def test_nothing_is_no_write(ship):
    store = Unwell()
    shipper = ship(store)
    shipper.put([])
    assert shipper.flush(0)
    assert store.batches == []


def test_a_tick_comes_again_and_again_whether_the_store_answers_or_not(ship):
    ticks = []
    store = Unwell(*[WriteUnavailable("away")] * 100)
    shipper = ship(store, tick=lambda: ticks.append(1), tick_seconds=0.05)
    shipper.put(points(1))
    until(lambda: len(ticks) >= 3)


def test_a_tick_that_fails_stops_nothing(ship, said):
    def tick():
        raise RuntimeError("odd")

    store = Unwell()
    shipper = ship(store, tick=tick, tick_seconds=0.01)
    until(lambda: said("odd"))
    shipper.put(points(1))
    assert shipper.flush(20)


def test_a_forked_child_ships_its_own_points_and_only_those(tmp_path, ship):
    store = SqliteStore(tmp_path / "g.db")
    shipper = ship(store)
    shipper.put(points(1))
    child = os.fork()
    if child == 0:
        try:
            shipper.put(points(2))
            os._exit(0 if shipper.flush(20) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shipper.flush(20)
    assert stored(store) == [1, 2]
    assert shipper.delivery.shipped == 1


def test_what_a_forked_child_leaves_its_parent_ships(tmp_path, ship):
    store = SqliteStore(tmp_path / "g.db")
    shipper = ship(store)
    shipper.put(points(1))
    child = os.fork()
    if child == 0:
        shipper.spool.append(b"m,run=r f=2 2\n", 1)
        os._exit(0)
    os.waitpid(child, 0)
    shipper.close(20)
    assert stored(store) == [1, 2]


def test_a_forked_child_that_puts_nothing_ends_at_once(ship):
    store = Unwell()
    store.hold()
    shipper = ship(store)
    shipper.put(points(1))
    assert store.busy.wait(10)
    child = os.fork()
    if child == 0:
        begin = time.monotonic()
        shipper.close(20)
        os._exit(0 if time.monotonic() - begin < 5 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.free.set()
    assert shipper.flush(20)


def test_a_refusal_without_a_reason_is_one(ship):
    shipper = ship(Unwell(WriteRejected([])))
    shipper.put(points(1))
    assert shipper.flush(20)
    assert (shipper.delivery.rejected, shipper.spool.waiting) == (1, 0)


def test_foreign_text_cannot_speak_to_the_terminal(ship, said):
    shipper = ship(Unwell(WriteUnavailable("\x1b[2Jgone\nfor now")))
    shipper.put(points(1))
    assert shipper.flush(20)
    (text,) = said("takes no points now")
    assert text.isprintable()
