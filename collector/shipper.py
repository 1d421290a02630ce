"""The thread that empties the queue of points into the store, so that training never waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

from collector.errors import WriteRejected, WriteUnavailable
from collector.schema import Point
from collector.store.protocol import Store

BATCH_POINTS: Final = 5_000
MAX_POINTS: Final = 200_000
"""What the queue holds while the store is away: some hundred MB at the worst. Past it the oldest points go."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0

log = logging.getLogger("gatewatch")


class Shipper:
    """A bounded queue in memory and the thread that writes it to a store.

    What the store refuses is counted and said once; while the store is away the points wait, which is said once too,
    and so is its return.

    Args:
        store: where the points go. Only the thread writes to it.
        max_points: the bound of the queue.
    """

    def __init__(self, store: Store, max_points: int = MAX_POINTS) -> None:
        self._store = store
        self._max_points = max_points
        self._queue: deque[Point] = deque()
        self._changed = threading.Condition()
        self._writing = 0
        self._away = self._closed = False
        self._hurry = threading.Event()
        self._said: set[str] = set()
        self.shipped = self.rejected = self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="gatewatch-shipper", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many points are not in the store yet."""
        with self._changed:
            return len(self._queue) + self._writing

    def put(self, points: Sequence[Point]) -> None:
        """Queue points; never blocks, never raises, and does nothing after `close`."""
        with self._changed:
            if self._closed:
                return
            self._queue.extend(points)
            surplus = len(self._queue) - self._max_points
            if surplus > 0:
                for _ in range(surplus):
                    self._queue.popleft()
                self.dropped += surplus
                self._say("full", f"more than {self._max_points:,} points wait for {self._store.url}: the oldest go")
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until everything is in the store, for at most so long; whether it is."""
        with self._changed:
            self._hurry.set()
            return self._changed.wait_for(lambda: not (self._queue or self._writing), seconds)

    def close(self, seconds: float) -> None:
        """Ship what is left for at most so long, then stop; what stays behind is counted as dropped and said."""
        if self._closed:
            return
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0 and not self.flush(min(left_s, _FIRST_WAIT)):
            pass  # each flush has the store tried again
        with self._changed:
            left = len(self._queue) + self._writing
            self._closed = True
            self._queue.clear()
            self._hurry.set()
            self._changed.notify_all()
        if left:
            self.dropped += left
            log.error("gatewatch: %s points did not reach %s within %g s", f"{left:,}", self._store.url, seconds)
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        wait = _FIRST_WAIT
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                self._hurry.clear()  # before the write: who flushes or closes during it does not wait for the pause
                batch = [self._queue.popleft() for _ in range(min(BATCH_POINTS, len(self._queue)))]
                self._writing = len(batch)
            retry_after = self._write(batch)
            with self._changed:
                self._writing = 0
                if retry_after is not None and not self._closed:
                    self._queue.extendleft(reversed(batch))
                self._changed.notify_all()
            if retry_after is None:
                wait = _FIRST_WAIT
            else:
                self._hurry.wait(min(max(retry_after, wait), _LONGEST_WAIT))
                wait = min(wait * 2, _LONGEST_WAIT)

    def _write(self, batch: list[Point]) -> float | None:
        """Write a batch; None where it is done with, or the seconds to wait before it is tried again."""
        try:
            self._store.write(batch)
        except WriteRejected as error:
            self.rejected += error.count
            self.shipped += len(batch) - min(error.count, len(batch))
            self._say("rejected", f"{self._store.url} refused {error.count} points, which are left out: {error}")
        except Exception as error:
            self._away = True
            self._say("away", f"{self._store.url} takes no points now, they wait: {error}")
            return error.retry_after or 0.0 if isinstance(error, WriteUnavailable) else 0.0
        else:
            self.shipped += len(batch)
        if self._away:
            self._away = False
            self._said.discard("away")
            log.warning("gatewatch: %s takes points again", self._store.url)
        return None

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning("gatewatch: %s", text)
