"""Writes points into the destination while more are read."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import WriteRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatewatch.collector.schema import Point
    from gatewatch.collector.store import Store
    from gatewatch.jobs.retry import Retry

BATCH: Final = 5_000
"""Points of a write: see `gatewatch.collector.store.influxdb.store.BATCH`."""
WRITES: Final = 2
"""Writes at once: while the server stores one, the next is on its way."""


class Writer:
    """Writes points, a measurement's together.

    Args:
        store: the destination.
        retry: of each write.

    Attributes:
        refused: measurement → reason → number of points. It is complete after `drain`.
    """

    def __init__(self, store: Store, retry: Retry) -> None:
        self.refused: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._store = store
        self._retry = retry
        self._waiting: defaultdict[str, list[Point]] = defaultdict(list)
        self._threads = ThreadPoolExecutor(WRITES, "copying")
        self._writing: deque[tuple[str, Future[None]]] = deque()

    def add(self, points: Sequence[Point]) -> None:
        """Take points of one measurement.

        Raises:
            WriteUnavailable: an earlier write failed.
        """
        measurement = points[0].measurement
        waiting = self._waiting[measurement]
        waiting += points
        while len(waiting) >= BATCH:
            self._submit(measurement, waiting[:BATCH])
            del waiting[:BATCH]

    def drain(self) -> None:
        """Wait until all points that were taken are written.

        Raises:
            WriteUnavailable: a write failed.
        """
        for measurement, waiting in self._waiting.items():
            if waiting:
                self._submit(measurement, waiting)
        self._waiting.clear()
        self._wait_for_writes(0)

    def close(self) -> None:
        """Begin no more writes, and wait for those that have begun."""
        self._retry.end()
        self._threads.shutdown(cancel_futures=True)

    def _submit(self, measurement: str, points: list[Point]) -> None:
        self._wait_for_writes(WRITES - 1)
        write = self._threads.submit(self._retry, lambda: self._store.write(points))
        self._writing.append((measurement, write))

    def _wait_for_writes(self, most: int) -> None:
        """Wait until at most so many writes are going on, the oldest first."""
        while len(self._writing) > most:
            measurement, write = self._writing.popleft()
            try:
                write.result()
            except WriteRejected as rejected:
                reasons = Counter(reason for _, reason in rejected.lines)
                others = [reason for reason in rejected.reasons if reason not in reasons]
                reasons.update(others[: rejected.count - reasons.total()])
                self.refused[measurement] += reasons
