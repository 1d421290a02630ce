"""Points on their way into the destination."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import WriteRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gatewatch.collector.schema import Point
    from gatewatch.collector.store import Store
    from gatewatch.jobs.copying.retry import Patience

BATCH: Final = 5_000
"""Points of a write: see `gatewatch.collector.store.influxdb.store.BATCH`."""
WRITES: Final = 2
"""Writes at once: while the server stores one, the next is on its way."""


class Sender:
    """Writes points, a measurement's together, while more are read.

    Args:
        store: the destination.
        patience: with which it is asked.

    Attributes:
        refused: measurement → reason → points. It is whole after `drain`.
    """

    def __init__(self, store: Store, patience: Patience) -> None:
        self.refused: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._store = store
        self._patience = patience
        self._waiting: defaultdict[str, list[Point]] = defaultdict(list)
        self._threads = ThreadPoolExecutor(WRITES, "copying")
        self._writing: deque[tuple[str, Future[WriteRejected | None]]] = deque()

    def add(self, points: Sequence[Point]) -> None:
        """Take points of one measurement.

        Raises:
            WriteUnavailable: the store took none in time.
        """
        measurement = points[0].measurement
        waiting = self._waiting[measurement]
        waiting += points
        while len(waiting) >= BATCH:
            self._submit(measurement, waiting[:BATCH])
            del waiting[:BATCH]

    def drain(self) -> None:
        """Wait until everything that was taken is written.

        Raises:
            WriteUnavailable: the store took not all of it in time.
        """
        for measurement, waiting in self._waiting.items():
            if waiting:
                self._submit(measurement, waiting)
        self._waiting.clear()
        while self._writing:
            self._collect()

    def close(self) -> None:
        """Begin no more writes, and wait for those that have begun."""
        self._patience.end()
        self._threads.shutdown(cancel_futures=True)

    def _submit(self, measurement: str, points: list[Point]) -> None:
        while len(self._writing) >= WRITES:
            self._collect()
        self._writing.append((measurement, self._threads.submit(self._write, points)))

    def _write(self, points: list[Point]) -> WriteRejected | None:
        try:
            self._patience(lambda: self._store.write(points))
        except WriteRejected as rejected:
            return rejected
        return None

    def _collect(self) -> None:
        measurement, writing = self._writing.popleft()
        if (rejected := writing.result()) is not None:
            reasons = Counter(reason for _, reason in rejected.lines)
            told = [reason for reason in rejected.reasons if reason not in reasons]
            reasons.update(told[: rejected.count - reasons.total()])
            self.refused[measurement] += reasons
