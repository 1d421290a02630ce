"""The queue and its thread: what is put arrives once and in order, or is counted; nobody waits longer than agreed."""

from __future__ import annotations

import logging
import math
import threading

import pytest

from collector.errors import WriteRejected, WriteUnavailable
from collector.schema import Point
from collector.shipper import BATCH_POINTS, Shipper
from collector.store.sqlite import SqliteStore


def points(*numbers):
    return [Point("m", {"run": "r"}, {"f": float(n)}, n) for n in numbers]


class Unwell:
    """A store that answers its first writes with the errors it was given, and can be held up in a write.

    It stands in for a server at the moments that a real one cannot be brought to: an error at exactly this write, a
    write that hangs for as long as the test likes.
    """

    url = "unwell://"

    def __init__(self, *errors):
        self.errors, self.batches = list(errors), []
        self.busy, self.free = threading.Event(), threading.Event()
        self.free.set()

    @property
    def numbers(self):
        return [point.time for batch in self.batches for point in batch]

    def hold(self):
        self.free.clear()

    def write(self, batch):
        self.busy.set()
        assert self.free.wait(30)
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append(list(batch))


@pytest.fixture
def ship():
    """Make shippers; at the end none of their threads runs."""
    before, made = set(threading.enumerate()), []

    def make(store, *arguments):
        made.append((Shipper(store, *arguments), store))
        return made[-1][0]

    yield make
    for shipper, store in made:
        if isinstance(store, Unwell):
            store.free.set()
        shipper.close(5)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), "a thread is left running"


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "gatewatch")
    return lambda text: [record.message for record in caplog.records if text in record.message]


def stored(store):
    return store.read("m")["f"].tolist()


def test_what_is_put_arrives_in_order(tmp_path, ship):
    store = SqliteStore(tmp_path / "g.db")
    shipper = ship(store)
    for n in range(0, 300, 3):
        shipper.put(points(n, n + 1, n + 2))
    assert shipper.flush(30)
    assert stored(store) == [float(n) for n in range(300)]
    assert (shipper.shipped, shipper.rejected, shipper.dropped, shipper.waiting) == (300, 0, 0, 0)


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
    assert (shipper.shipped, shipper.dropped, shipper.waiting) == (4, 0, 0)
    assert len(said("takes no points now")) == len(said("takes points again")) == 1


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
    assert shipper.waiting == 3
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
    assert (shipper.shipped, shipper.rejected, shipper.waiting) == (3, 8, 0)
    assert len(said("refused")) == 1


def test_a_store_that_refuses_more_than_it_got_does_not_make_the_count_negative(ship):
    shipper = ship(Unwell(WriteRejected(["wrong"], count=7)))
    shipper.put(points(1, 2))
    assert shipper.flush(30)
    assert (shipper.shipped, shipper.rejected) == (0, 7)


def test_a_refusal_after_an_outage_is_an_answer(ship, said):
    shipper = ship(Unwell(WriteUnavailable("away"), WriteRejected(["wrong"])))
    shipper.put(points(1, 2))
    assert shipper.flush(30)
    assert len(said("takes points again")) == 1
    assert (shipper.shipped, shipper.rejected) == (1, 1)


def test_a_full_queue_lets_the_oldest_go_and_says_so_once(ship, said):
    store = Unwell()
    shipper = ship(store, 4)
    store.hold()
    shipper.put(points(0))
    assert store.busy.wait(10)
    for n in range(1, 11):
        shipper.put(points(n))
    assert (shipper.dropped, shipper.waiting) == (6, 5)
    assert len(said("the oldest go")) == 1
    store.free.set()
    assert shipper.flush(30)
    assert store.numbers == [0, 7, 8, 9, 10]
    assert shipper.shipped + shipper.dropped == 11


def test_one_put_larger_than_the_queue_keeps_its_newest(ship):
    store = Unwell()
    shipper = ship(store, 4)
    store.hold()
    shipper.put(points(0))
    assert store.busy.wait(10)
    shipper.put(points(*range(1, 101)))
    store.free.set()
    assert shipper.flush(30)
    assert store.numbers == [0, 97, 98, 99, 100]


def test_a_flush_gives_up_at_its_deadline_and_loses_nothing(ship):
    store = Unwell()
    shipper = ship(store)
    assert shipper.flush(0)
    store.hold()
    shipper.put(points(1))
    assert not shipper.flush(0.01)
    assert shipper.waiting == 1
    store.free.set()
    assert shipper.flush(30)
    assert store.numbers == [1]


def test_a_flush_does_not_wait_out_the_pause_after_a_failure(ship):
    store = Unwell(WriteUnavailable("away", retry_after=3600))
    shipper = ship(store)
    shipper.put(points(1))
    assert store.busy.wait(10)
    assert shipper.flush(20)
    assert store.numbers == [1]


def test_a_flush_during_a_write_that_fails_is_not_forgotten(ship):
    class Flushed(Unwell):
        def write(self, batch):
            if self.errors:
                shipper.flush(0)
            super().write(batch)
            arrived.set()

    arrived = threading.Event()
    store = Flushed(WriteUnavailable("away", retry_after=3600))
    shipper = ship(store)
    shipper.put(points(1))
    assert arrived.wait(20)


def test_a_close_gives_up_at_its_deadline_and_says_what_is_lost(ship, said):
    store = Unwell()
    shipper = ship(store)
    store.hold()
    shipper.put(points(1))
    assert store.busy.wait(10)
    shipper.put(points(2, 3))
    shipper.close(0.01)
    assert shipper.dropped == 3
    assert said("did not reach") == ["gatewatch: 3 points did not reach unwell:// within 0.01 s"]
    store.free.set()


def test_a_close_during_a_write_that_fails_ends_the_thread(ship):
    store = Unwell(WriteUnavailable("away", retry_after=3600))
    shipper = ship(store)
    store.hold()
    shipper.put(points(1))
    assert store.busy.wait(10)
    shipper.close(0.01)
    store.free.set()
    assert shipper.flush(10)


def test_a_close_ships_what_is_left_and_ends_the_thread(tmp_path, ship, said):
    before = threading.active_count()
    store = SqliteStore(tmp_path / "g.db")
    shipper = ship(store)
    assert threading.active_count() == before + 1
    shipper.put(points(*range(1000)))
    shipper.close(30)
    assert threading.active_count() == before
    assert len(stored(store)) == shipper.shipped == 1000
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
    assert (shipper.shipped, shipper.dropped, shipper.waiting) == (1, 0, 0)
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
    assert shipper.shipped == 800


def test_nothing_is_no_write(ship):
    store = Unwell()
    shipper = ship(store)
    shipper.put([])
    assert shipper.flush(0)
    assert store.batches == []
