"""The thread that empties the spool into the store, so that training never waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from gatewatch.collector.line_protocol import encode
from gatewatch.collector.log import log
from gatewatch.collector.runtime.error_guard import ErrorGuard
from gatewatch.collector.runtime.fork import reset_in_forked_child
from gatewatch.collector.schema import Point, point_problem
from gatewatch.collector.spool.delivery import Delivery, Outcome
from gatewatch.collector.spool.queue import BATCH_POINTS, Spool
from gatewatch.collector.store.base import Store

LINGER_SECONDS: Final = 0.5
"""How long a few points wait for more, so that a capture is one write and not five."""
ADOPT_SECONDS: Final = 30.0
_CLOSE_STEP: Final = 0.5
"""Seconds between tries while a run ends."""


class Shipper:
    """Queues points in a spool, and writes them to the store in a thread of its own.

    A run has one shipper and one spool. The shipper also writes the points that processes which ended have left for the
    same store. Points that the store rejects are quarantined, counted and logged once. While the store is away the
    points wait in the spool; its absence and its return are logged once. A forked child begins a thread and a folder of
    its own when it queues its first points.

    Args:
        store: where the points go. Only the thread writes to it.
        spool: where the points wait.
        tick: called by the thread about every `tick_seconds`.
        tick_seconds: seconds between two calls of `tick`.
        last: called by the thread before it ends, where everything is in the store.
        first_wait: seconds to wait before the first try.

    Attributes:
        spool: counts the points that wait, and those that are lost.
        delivery: counts the points that were shipped and rejected, including those that other processes left.
        busy_seconds: seconds that the thread has spent working.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        *,
        tick: Callable[[], None] = lambda: None,
        tick_seconds: float = ADOPT_SECONDS,
        last: Callable[[], None] = lambda: None,
        first_wait: float = 0.0,
    ) -> None:
        self.spool = spool
        self._store = store
        self._tick, self._tick_seconds, self._last = tick, tick_seconds, last
        self._closed = False
        self._begin(first_wait)
        reset_in_forked_child(self)
        self._start()

    def _begin(self, first_wait: float = 0.0) -> None:
        self._changed = threading.Condition()
        self._hurry = False
        self._thread: threading.Thread | None = None
        self._guard = ErrorGuard()
        self.delivery = Delivery(self._store, self.spool, self._guard, first_wait)
        self.busy_seconds = 0.0

    after_fork_in_child = _begin  # without a thread

    @property
    def at_work_here(self) -> bool:
        """Whether this thread is in the middle of queueing or shipping: what waits for either would wait for ever."""
        return threading.current_thread() is self._thread or self.spool.held_here

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="gatewatch-shipper", daemon=True)
        thread.start()
        self._thread = thread

    def put(self, points: Sequence[Point]) -> None:
        """Queue points. Never raises and never waits for the store; does nothing after `close`."""
        if self._closed or not points:
            return
        for i in range(0, len(points), BATCH_POINTS):
            part = list(points[i : i + BATCH_POINTS])
            try:
                lines = encode(part)
            except Exception:  # some have no line: the others have
                part = self._sound(part)
                lines = encode(part)
            if part:
                self.spool.append(lines, len(part))
                self._warn_of_losses()
        with self._changed:
            if self._thread is None:  # in a forked child
                with suppress(RuntimeError):  # Python 3.12 starts none where the process ends: the next run ships
                    self._start()
            self._changed.notify_all()

    def _sound(self, points: Sequence[Point]) -> list[Point]:
        problems = [(point, point_problem(point)) for point in points]
        if wrong := [(repr(point).encode(errors="replace"), problem) for point, problem in problems if problem]:
            try:
                self.delivery.refuse(wrong, len(wrong))
            except OSError:  # they have no line that could wait
                self.spool.dropped += len(wrong)
        return [point for point, problem in problems if not problem]

    def _warn_of_losses(self) -> None:
        spool = self.spool
        if spool.disk_error is not None:
            text = f"{spool.folder} cannot be written, the points stay in memory: {spool.disk_error}"
            self._guard.warn_once(text, "disk")
        if spool.damaged:
            self._guard.warn_once(f"records in {spool.folder} were damaged or deleted, and are passed over", "damaged")
        if spool.overflowed:
            self._guard.warn_once(f"the spool for {self._store.url} is full: the oldest points are dropped", "full")

    def flush(self, seconds: float) -> bool:
        """Wait for at most `seconds` until everything is in the store; return whether it is.

        The store is tried at once, unless it has asked to wait (`Retry-After`).
        """
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self.spool.waiting, seconds)

    def close(self, seconds: float) -> bool:
        """Ship the remaining points for at most `seconds`, then stop. Points that are left stay in the spool; a log
        message says so.

        Returns:
            Whether the thread has ended, and so no longer uses the store.
        """
        if self._closed:
            return True
        deadline = time.monotonic() + seconds
        if self._thread is not None:  # it is None in a forked child that has put nothing
            with self._guard.guarded("background work"):
                self.spool.adopt()  # what forked children have left
            while not self.flush(min(deadline - time.monotonic(), _CLOSE_STEP)):
                if max(time.monotonic(), self.delivery.not_before) >= deadline:
                    break
        with self._changed:
            self._closed = self._hurry = self.delivery.closing = True
            self._changed.notify_all()
        if lost := self.spool.save_memory():
            log.error("gatewatch: %s points are lost: neither disk nor %s took them", f"{lost:,}", self._store.url)
        if self._thread is not None:
            self._thread.join(timeout=0.2 if self.spool.waiting else max(1.0, deadline - time.monotonic()))
        if left := self.spool.waiting:
            waiting = f"{left:,} points wait in {self.spool.folder.parent}"
            next_run = f"the next run with {self._store.url} ships them, or `gatewatch spool flush`"
            self._guard.warn_once(f"{waiting}: {next_run}")
        self.spool.close()
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        every = {self.spool.adopt: ADOPT_SECONDS, self._tick: self._tick_seconds}
        due = {self.spool.adopt: 0.0, self._tick: time.monotonic() + self._tick_seconds}
        while not self._closed:
            now = time.monotonic()
            for work, at in due.items():
                if now >= at:
                    with self._guard.guarded("background work"):
                        work()
                    due[work] = now + every[work]
            if self._wait_for_work(max(0.01, min(due.values()) - now)):
                self._ship()
                self.busy_seconds = time.thread_time()
        if not self.spool.waiting and self.delivery.problem is None:
            with self._guard.guarded("background work"):
                self._last()

    def _wait_for_work(self, seconds: float) -> bool:
        """Wait for points, for at most `seconds`; return whether the store may be tried."""
        with self._changed:
            hurry = self._hurry
            pause = max(self.delivery.not_before, 0.0 if hurry else self.delivery.retry_at) - time.monotonic()
            if pause > 0:
                self._changed.wait_for(lambda: self._closed or self._hurry != hurry, min(seconds, pause))
                return False
            later = self.delivery.not_due()
            seconds = max(0.01, min(seconds, self.delivery.next_retry() - time.monotonic()))
            self._changed.wait_for(lambda: self._hurry or self.spool.waiting_beside(later), seconds)
            enough = BATCH_POINTS
            self._changed.wait_for(lambda: self._hurry or self.spool.waiting_beside(later) >= enough, LINGER_SECONDS)
            return True

    def _ship(self) -> None:
        """Write what waits, until nothing is left or the store takes nothing."""
        while not self._closed:
            self._hurry = False  # before the write: a flush or close during it does not wait for the pause
            try:
                batch = self.spool.next_batch(self.delivery.not_due())
                if batch is None:
                    return
                outcome = self.delivery.write(batch) if batch.lines else Outcome.DONE
                if outcome is Outcome.WAIT:
                    return
                if outcome is Outcome.DONE:
                    self.spool.done(batch)
                self._warn_of_losses()
            except Exception as error:
                self._guard.warn_once(f"{self.spool.folder} cannot be read now: {error}", "spool")
                self.delivery.back_off()
                return
            finally:
                with self._changed:
                    self._changed.notify_all()
