"""Write batches to the store: what it rejects is quarantined, and what it cannot take now is retried with backoff."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Sequence
from typing import Final

from gatewatch.collector.errors import WriteRejected, WriteUnavailable
from gatewatch.collector.line_protocol import parse, split_lines
from gatewatch.collector.runtime.error_guard import ErrorGuard
from gatewatch.collector.spool.queue import Spool
from gatewatch.collector.store.base import Store
from gatewatch.collector.text import describe_exception, one_line

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
"""Seconds between tries: the first pause, which doubles with each failure, and the longest."""
SLOW_WAIT: Final = 60.0
"""Seconds between tries where a person has to mend something first: a token, a bucket, an address."""
LONGEST_RETRY_AFTER: Final = 600.0
_UNEXPECTED_TRIES: Final = 5
"""Attempts for a batch that fails with an unexpected exception, before it is quarantined."""

_jitter: Final = random.Random()  # noqa: S311 - no secret. Its own: the global one is the training's
log = logging.getLogger("gatewatch")


class Delivery:
    """Writes batches to a store, and counts what becomes of them.

    Args:
        store: where the points go; one without `write_lines` is given points.
        spool: where rejected lines are quarantined.
        guard: logs what goes wrong, once.
        first_wait: seconds to wait before the first try.

    Attributes:
        shipped: number of points that the store has taken.
        rejected: number of points that it has refused.
        problem: why the store takes no points now; None where it takes them.
        not_before: the time (`time.monotonic()`) before which the store asked not to be tried again.
        retry_at: the time of the next try, unless the caller flushes earlier.
    """

    def __init__(self, store: Store, spool: Spool, guard: ErrorGuard, first_wait: float = 0.0) -> None:
        self._url, self._spool, self._guard = store.url, spool, guard
        self._send = getattr(store, "write_lines", None) or (
            lambda lines: store.write([parse(line) for line in split_lines(lines)])
        )
        self._wait = FIRST_WAIT
        self._unexpected = 0
        self.shipped = self.rejected = 0
        self.problem: str | None = None
        self.not_before = time.monotonic() + min(first_wait, LONGEST_RETRY_AFTER)
        self.retry_at = 0.0

    def write(self, lines: bytes, points: int) -> bool:
        """Write a batch. Return True if it is stored or quarantined; if False, write it again at `retry_at`."""
        try:
            self._send(lines)
        except WriteRejected as error:
            self.refuse(error.lines or [(lines.rstrip(b"\n"), error.reasons[0])], error.count)
            self.shipped += max(0, points - error.count)
            self._wait = FIRST_WAIT
        except WriteUnavailable as error:
            self._unexpected = 0
            self.not_before = time.monotonic() + min(error.retry_after or 0.0, LONGEST_RETRY_AFTER)
            self._went_away(error, "mend" if error.slow else "away")  # an outage may end in a missing bucket
            # With jitter, so that many do not come back at once.
            self.back_off((SLOW_WAIT if error.slow else self._wait) * _jitter.uniform(0.5, 1.0))
            return False
        except Exception as error:  # none that a store should give: a batch that does this must not stop all others
            self._unexpected += 1
            self._went_away(error, "away")
            if self._unexpected < _UNEXPECTED_TRIES:
                self.back_off()
                return False
            self.refuse([(line, describe_exception(error)) for line in split_lines(lines)], points)
        else:
            self.shipped += points
            self._wait = FIRST_WAIT
        self._unexpected = 0
        if self.problem is not None:
            self.problem = None
            self._guard.forget("away", "mend")
            log.warning("gatewatch: %s takes points again", self._url)
        return True

    def refuse(self, lines: Sequence[tuple[bytes, str]], count: int) -> None:
        """Quarantine lines, each with the reason, and count their points."""
        self.rejected += count
        self._spool.reject(lines)
        put_aside = "which are put aside (`gatewatch spool status`)"
        self._guard.warn_once(f"{self._url} refused {count} points, {put_aside}: {lines[0][1]}", "rejected")

    def back_off(self, seconds: float | None = None) -> None:
        """Set the time of the next try, by default with exponential backoff up to `LONGEST_WAIT` seconds."""
        self.retry_at = time.monotonic() + (self._wait if seconds is None else seconds)
        self._wait = min(self._wait * 2, LONGEST_WAIT)

    def _went_away(self, error: Exception, topic: str) -> None:
        self.problem = one_line(error)
        self._guard.warn_once(f"{self._url} takes no points now, they wait: {error}", topic)
