"""The thread that empties the spool into the store, so that training never waits for it."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from gatewatch.collector.errors import WriteRejected, WriteUnavailable
from gatewatch.collector.line_protocol import decode, encode, split_lines
from gatewatch.collector.schema import Point, point_problem
from gatewatch.collector.spool.queue import Spool
from gatewatch.collector.store.protocol import Store
from gatewatch.collector.text import one_line

BATCH_POINTS: Final = 5_000
"""Points of a record and of a write: what InfluxDB's own documentation calls best."""
LINGER_SECONDS: Final = 0.5
"""How long a few points wait for more, so that a capture is one write and not five."""
ADOPT_SECONDS: Final = 30.0
MEMORY_BYTES: Final = 64 * 2**20
"""What is kept in memory while the disk takes nothing."""
FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
SLOW_WAIT: Final = 60.0
"""Seconds between tries where a person has to mend something first: a token, a bucket, an address."""
LONGEST_RETRY_AFTER: Final = 600.0
_UNKNOWN_TRIES: Final = 5
"""Attempts for a batch that fails with an unexpected exception, before it is quarantined."""

log = logging.getLogger("gatewatch")


class Shipper:
    """The queue of a run and the thread that writes it to a store.

    What the store rejects is quarantined, counted and logged once. While the store is away the points wait in the
    spool; its absence and its return are logged once. A forked child begins a thread and a folder of its own with the
    first points that are put there.

    Args:
        store: where the points go; one without `write_lines` is given points. Only the thread writes to it.
        spool: where they wait.
        tick: called by the thread about every `tick_seconds`.
        tick_seconds: seconds.
        first_wait: seconds before the store wants to be asked.

    Attributes:
        shipped, rejected, dropped: points that are in the store; that were refused; that are lost, for want of room or
            with what somebody deleted or damaged in the spool. Since the beginning, those that others left behind
            included.
    """

    def __init__(
        self,
        store: Store,
        spool: Spool,
        *,
        tick: Callable[[], None] | None = None,
        tick_seconds: float = ADOPT_SECONDS,
        first_wait: float = 0.0,
    ) -> None:
        self.store = store
        self.spool = spool
        self._send = getattr(store, "write_lines", None) or (lambda lines: store.write(decode(lines)))
        self._tick, self._tick_seconds = tick, tick_seconds
        self._begin()
        self._not_before = time.monotonic() + min(first_wait, LONGEST_RETRY_AFTER)
        _shippers.add(self)
        self._start()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._hurry = threading.Event()
        self._memory: deque[tuple[bytes, int]] = deque()
        self._memory_bytes = 0
        self._thread: threading.Thread | None = None
        self._putting = 0
        self._away = self._closed = self._writing = self._fresh = False
        self._unknown = 0
        self.problem: str | None = None
        """Why the store takes nothing now."""
        self._not_before = 0.0
        """When the server wants to be asked again."""
        self._said: set[str] = set()
        self._dropped = 0
        self.shipped = self.rejected = 0
        self.busy_seconds = 0.0

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="gatewatch-shipper", daemon=True)
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """Whether the thread has ended, and uses the store no more."""
        return self._thread is None or not self._thread.is_alive()

    @property
    def dropped(self) -> int:
        """Points that are lost, on disk and in memory."""
        return self._dropped + self.spool.dropped

    @property
    def waiting(self) -> int:
        """How many points are not in the store yet."""
        return self.spool.waiting + sum(points for _, points in list(self._memory))

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
                self._keep(lines, len(part))
            with self._changed:
                self._fresh = True
                if self._thread is None:  # in a forked child
                    self._start()
                self._changed.notify_all()

    def _sound(self, points: Sequence[Point]) -> list[Point]:
        sound = []
        for point in points:
            if problem := point_problem(point):
                self._refused([(repr(point).encode(errors="replace"), problem)])
            else:
                sound.append(point)
        return sound

    def _keep(self, lines: bytes, points: int) -> None:
        before, damaged = self.spool.dropped, self.spool.damaged
        try:
            self.spool.append(lines, points)
        except OSError as error:
            self._say("disk", f"{self.spool.folder} cannot be written, the points stay in memory: {error}")
            with self._changed:
                self._memory.append((lines, points))
                self._memory_bytes += len(lines)
                while self._memory_bytes > MEMORY_BYTES and len(self._memory) > 1:
                    oldest, count = self._memory.popleft()
                    self._memory_bytes -= len(oldest)
                    self._dropped += count
        self._say_damage()
        if (self.spool.dropped > before and self.spool.damaged == damaged) or self._dropped:
            self._say("full", f"no room for all that waits for {self.store.url}: the oldest points go")

    def _say_damage(self) -> None:
        if self.spool.damaged:
            self._say("damaged", f"records in {self.spool.folder} were damaged or deleted, and are passed over")

    def flush(self, seconds: float) -> bool:
        """Wait until everything is in the store, for at most so long; whether it is.

        The store is tried at once, unless it has said when.
        """
        with self._changed:
            self._hurry.set()
            self._changed.notify_all()
            return self._changed.wait_for(self._idle, seconds)

    def _idle(self) -> bool:
        return not self._writing and not self._fresh and not self.waiting

    def close(self, seconds: float) -> None:
        """Ship what is left for at most so long, then stop; what stays behind waits in the spool, which is said."""
        if self._closed:
            return
        if self._thread is None:  # a forked child that has put nothing
            self._closed = True
            self.spool.close()
            return
        deadline = time.monotonic() + seconds
        self._guarded(self.spool.adopt)  # what forked children have left
        with self._changed:
            self._fresh = True
        while not self.flush(min(max(0.0, deadline - time.monotonic()), FIRST_WAIT)):  # which has the store tried again
            if max(time.monotonic(), self._not_before) >= deadline:
                break
        with self._changed:
            self._closed = True
            self._spare_memory()
            self._hurry.set()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=max(1.0, deadline - time.monotonic()) if not self.waiting else 0.2)
        if left := self.spool.waiting:
            log.warning(
                "gatewatch: %s points wait in %s: the next run with %s ships them, or `gatewatch spool flush`",
                f"{left:,}",
                self.spool.folder.parent,
                self.store.url,
            )
        self.spool.close()

    def _spare_memory(self) -> None:
        """Try the disk once more with what is in memory."""
        while self._memory:
            lines, points = self._memory.popleft()
            try:
                self.spool.append(lines, points)
            except OSError:
                lost = points + sum(count for _, count in self._memory)
                self._dropped += lost
                self._memory.clear()
                log.error("gatewatch: %s points are lost: neither disk nor %s took them", f"{lost:,}", self.store.url)

    def _run(self) -> None:
        wait, retry_at, adopt_at, tick_at = FIRST_WAIT, 0.0, 0.0, time.monotonic() + self._tick_seconds
        while not self._closed:
            now = time.monotonic()
            if now >= adopt_at:
                self._guarded(self.spool.adopt)
                adopt_at = now + ADOPT_SECONDS
            if now >= tick_at:
                if self._tick is not None:
                    self._guarded(self._tick)
                tick_at = now + self._tick_seconds
            until = max(0.01, min(adopt_at, tick_at) - now)
            if now < self._not_before:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, min(until, self._not_before - now))
                continue
            if now < retry_at and not self._hurry.wait(min(until, retry_at - now)):
                continue
            with self._changed:
                if not self._fresh and not self.waiting:
                    self._changed.wait_for(lambda: self._fresh or self._closed or self._hurry.is_set(), until)
            with self._changed:
                self._changed.wait_for(self._enough, LINGER_SECONDS)
            pause = self._ship(wait)
            self.busy_seconds = time.thread_time()
            wait = FIRST_WAIT if pause is None else min(wait * 2, LONGEST_WAIT)
            retry_at = time.monotonic() + (pause or 0.0)

    def _enough(self) -> bool:
        return self._hurry.is_set() or self.waiting >= BATCH_POINTS

    def _ship(self, wait: float) -> float | None:
        """Write what waits; None where nothing is left, or the seconds to wait before the next try."""
        while not self._closed:
            with self._changed:
                self._hurry.clear()  # before the write: a flush or close during it does not wait for the pause
                self._fresh = False
                self._writing = True
            try:
                batch = self.spool.next_batch(BATCH_POINTS)
                lines, points = (batch.lines, batch.points) if batch else self._from_memory()
                if batch is None and not lines:
                    return None
                pause = self._write(lines, points, wait) if lines else None
                if pause is not None:
                    return pause
                if batch is not None:
                    self.spool.done(batch)
                    self._say_damage()
                else:
                    self._forget_memory(lines, points)
            except Exception as error:
                self._say("spool", f"{self.spool.folder} cannot be read now: {error}")
                return wait
            finally:
                with self._changed:
                    self._writing = False
                    self._changed.notify_all()
        return None

    def _from_memory(self) -> tuple[bytes, int]:
        with self._changed:
            return self._memory[0] if self._memory else (b"", 0)

    def _forget_memory(self, lines: bytes, points: int) -> None:
        with self._changed:
            if self._memory and self._memory[0][0] is lines:
                self._memory.popleft()
                self._memory_bytes -= len(lines)

    def _write(self, lines: bytes, points: int, wait: float) -> float | None:
        """Write a batch; None where it is done with, or the seconds to wait before it is tried again."""
        try:
            self._send(lines)
        except WriteRejected as error:
            self._refused(error.lines or [(lines.rstrip(b"\n"), error.reasons[0])], error.count)
            self.shipped += max(0, points - error.count)
        except WriteUnavailable as error:
            self._unknown = 0
            self._went_away(error)
            if error.retry_after:
                self._not_before = time.monotonic() + min(error.retry_after, LONGEST_RETRY_AFTER)
            # With jitter, so that many do not come back at once.
            return (SLOW_WAIT if error.slow else wait) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        except Exception as error:  # none that a store should give: a batch that does this must not stop all others
            self._unknown += 1
            self._went_away(error)
            if self._unknown < _UNKNOWN_TRIES:
                return wait
            text = f"{type(error).__name__}: {error}"
            self._refused([(line, text) for line in split_lines(lines)], points)
        else:
            self.shipped += points
        self._unknown = 0
        if self._away:
            self._away, self.problem = False, None
            self._said -= {"away", "mend"}
            log.warning("gatewatch: %s takes points again", self.store.url)
        return None

    def _refused(self, lines: Sequence[tuple[bytes, str]], count: int | None = None) -> None:
        count = len(lines) if count is None else count
        self.rejected += count
        self.spool.reject(lines)
        self._say(
            "rejected",
            f"{self.store.url} refused {count} points, which are put aside (`gatewatch spool status`): {lines[0][1]}",
        )

    def _went_away(self, error: Exception) -> None:
        self._away = True
        self.problem = one_line(error)
        what = "mend" if getattr(error, "slow", False) else "away"  # an outage may end in a missing bucket
        self._say(what, f"{self.store.url} takes no points now, they wait: {error}")

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            self._say("background", f"background work failed, training goes on: {type(error).__name__}: {error}")

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning("gatewatch: %s", one_line(text))


_shippers: weakref.WeakSet[Shipper] = weakref.WeakSet()


def _after_fork() -> None:
    for shipper in list(_shippers):
        closed = shipper._closed
        shipper._begin()
        shipper._closed = closed


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
