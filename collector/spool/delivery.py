"""Write batches to the store: what it rejects is quarantined, and what it cannot take now is retried with backoff."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Final

from gatewatch.collector.errors import WriteRejected, WriteUnavailable, reason_of
from gatewatch.collector.line_protocol import parse, split_lines
from gatewatch.collector.log import log
from gatewatch.collector.runtime.error_guard import ErrorGuard
from gatewatch.collector.spool.isolation import ROUND_WAIT, Isolation
from gatewatch.collector.spool.queue import Spool
from gatewatch.collector.spool.segment import Batch, Segment, read_segment
from gatewatch.collector.store.base import Store
from gatewatch.collector.text import one_line

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
"""Seconds between tries: the first pause, which doubles with each failure, and the longest."""
SLOW_WAIT: Final = 60.0
"""Seconds between tries where a person has to mend something first: a token, a bucket, an address."""
LONGEST_RETRY_AFTER: Final = 600.0
_TRIES: Final = 3
"""After so many failures of a batch something else is sent, to see whether the store takes that."""

_jitter: Final = random.Random()  # noqa: S311 - no secret. Its own: the global one is the training's

Key = Segment | Batch
"""What names a batch: the file that holds it, or where it is in memory, itself."""


class Outcome(Enum):
    """What became of a batch."""

    DONE = auto()
    """It is stored or quarantined."""
    WAIT = auto()
    """The store takes nothing now: write nothing before `Delivery.retry_at`."""
    SKIP = auto()
    """The store takes others: go on with those, and write this one again later."""


class _NotQuarantinedError(Exception):
    """The store rejected lines, and the disk does not take them."""


class Delivery:
    """Writes batches to a store, and counts what becomes of them.

    A batch that fails again and again may be wrong, or the store may be away: a batch that fails while others pass is
    taken apart (`Isolation`), and only lines that still fail then are quarantined.

    Args:
        store: where the points go; one without `write_lines` is given points.
        spool: where rejected lines are quarantined.
        guard: logs what goes wrong, once.
        first_wait: seconds to wait before the first try.

    Attributes:
        shipped: number of points that the store has taken.
        rejected: number of points that are quarantined.
        rounds: number of rounds in which lines were looked for that the store never takes.
        problem: why the store takes no points now; None where it takes them.
        not_before: the time (`time.monotonic()`) before which the store asked not to be tried again.
        retry_at: the time of the next try, unless the caller flushes earlier.
        closing: set it to end a round early.
    """

    def __init__(self, store: Store, spool: Spool, guard: ErrorGuard, first_wait: float = 0.0) -> None:
        self._url, self._spool, self._guard = store.url, spool, guard
        self._send = getattr(store, "write_lines", None) or (
            lambda lines: store.write([parse(line) for line in split_lines(lines)])
        )
        self._wait = FIRST_WAIT
        self._witness: bytes | None = None
        """The last line that the store has taken."""
        self._passed = 0
        self._failures: dict[Key, tuple[int, int]] = {}
        """How often a batch failed, and what `_passed` was the last time."""
        self._isolations: dict[Key, Isolation] = {}
        self._later: dict[Key, float] = {}
        self._particular = self._said_away = self.closing = False
        self.shipped = self.rejected = self.rounds = 0
        self.problem: str | None = None
        self.not_before = time.monotonic() + min(first_wait, LONGEST_RETRY_AFTER)
        self.retry_at = 0.0

    def write(self, batch: Batch) -> Outcome:
        """Write a batch, or what is left of it."""
        key = batch.segment or batch
        if key not in self._isolations:
            error = self._write(batch.lines, batch.points)
            if error is None:
                self._forget(key)
                return Outcome.DONE
            if isinstance(error, _NotQuarantinedError):
                return self._write_later(key)
            if not self._others_pass(key, batch, error):
                return self._wait_for_store(error)
            self._isolations[key] = Isolation(split_lines(batch.lines))
        return self._isolate(key)

    def not_due(self) -> set[Key]:
        """Return what is to be written later."""
        now = time.monotonic()
        for key in {*self._failures, *self._later} - {*self._spool.all_waiting()}:  # dropped
            self._forget(key)
        return {key for key, at in self._later.items() if at > now}

    def next_retry(self) -> float:
        """Return the time (`time.monotonic()`) at which the first of `not_due` is due; infinity where nothing is."""
        return min(self._later.values(), default=float("inf"))

    def refuse(self, lines: Sequence[tuple[bytes, str]], count: int) -> None:
        """Quarantine lines, each with the reason, and count their points.

        Raises:
            OSError: the disk does not take them; they are not counted.
        """
        self._spool.reject(lines)
        self.rejected += count
        put_aside = "which are put aside (`gatewatch spool status`)"
        self._guard.warn_once(f"{self._url} refused {count} points, {put_aside}: {lines[0][1]}", "rejected")

    def back_off(self, seconds: float | None = None) -> None:
        """Set the time of the next try, by default with exponential backoff up to `LONGEST_WAIT` seconds."""
        self.retry_at = time.monotonic() + (self._wait if seconds is None else seconds)
        self._wait = min(self._wait * 2, LONGEST_WAIT)

    def _write(self, lines: bytes, points: int) -> Exception | None:
        """Write lines, quarantine those that are rejected; return why they were not taken, None where they were."""
        rejected = 0
        try:
            self._send(lines)
        except WriteRejected as error:
            rejected = error.count
            try:
                self.refuse(error.lines or [(lines.rstrip(b"\n"), error.reasons[0])], rejected)
            except OSError as problem:
                self._warn_of_quarantine(problem)
                return _NotQuarantinedError()
        except Exception as error:
            return error
        self.shipped += max(0, points - rejected)
        if not rejected:
            self._passed += 1
            line = lines.rstrip(b"\n").rpartition(b"\n")[2]
            self._witness = split_lines(lines)[-1] if b'"' in line else line  # its text may have newlines
        self._is_well()
        return None

    def _is_well(self) -> None:
        """Note that the store has answered."""
        self._wait = FIRST_WAIT
        if self.problem is not None:
            self.problem = None
            self._guard.forget("away", "mend")
            if self._said_away:
                self._said_away = False
                log.warning("gatewatch: %s takes points again", self._url)

    def _others_pass(self, key: Key, batch: Batch, error: Exception) -> bool:
        """Return whether others pass where a batch failed. Sends one of its lines and one of another to find out."""
        if not _answered(error):
            return False
        times, passed = self._failures.get(key, (0, self._passed))
        self._failures[key] = (times + 1, self._passed)
        if times + 1 < (1 if self._particular else _TRIES):
            return False
        if self._passed > passed:
            return True
        own = split_lines(batch.lines)
        return (len(own) > 1 and self._passes(_jitter.choice(own))) or self._passes(self._other_line(key))

    def _other_line(self, key: Key) -> bytes | None:
        """Return some line that waits in another batch; None where there is none."""
        others = [other for other in self._spool.all_waiting() if other is not key]
        if not others:
            return None
        other = _jitter.choice(others)
        with suppress(OSError):
            lines = split_lines(other.lines if isinstance(other, Batch) else read_segment(other.path, other.size)[1])
            return _jitter.choice(lines) if lines else None
        return None

    def _passes(self, line: bytes | None) -> bool:
        """Send one line, which the store may have already; return whether it takes it now."""
        if line is None:
            return False
        try:
            self._send(line + b"\n")
        except Exception:
            return False
        self._witness = line
        self._is_well()
        return True

    def _isolate(self, key: Key) -> Outcome:
        """Do one round over what is left of a batch, and quarantine what has failed often enough."""
        isolation = self._isolations[key]
        self._particular = True
        if not isolation.round(self._write_part, lambda: self._passes(self._witness), self._ends_round):
            self._write_later(key)
            error = isolation.error
            return Outcome.SKIP if isinstance(error, _NotQuarantinedError) else self._wait_for_store(error)
        self.rounds += 1
        bad = [(line, reason_of(error)) for line, error in isolation.given_up()]
        if bad:
            try:
                self.refuse(bad, len(bad))
            except OSError as problem:
                self._warn_of_quarantine(problem)
                return self._write_later(key)
            isolation.forget_given_up()
        if isolation.done:
            self._forget(key)
            return Outcome.DONE
        return self._write_later(key)

    def _write_part(self, lines: Sequence[bytes]) -> Exception | None:
        return self._write(b"\n".join(lines) + b"\n", len(lines))

    def _ends_round(self, error: Exception) -> bool:
        return self.closing or not _answered(error)

    def _write_later(self, key: Key) -> Outcome:
        self._later[key] = time.monotonic() + ROUND_WAIT
        return Outcome.SKIP

    def _forget(self, key: Key) -> None:
        for known in (self._failures, self._isolations, self._later):
            known.pop(key, None)

    def _wait_for_store(self, error: Exception | None) -> Outcome:
        """Note that the store takes nothing now, and when to try again."""
        retry_after, slow = getattr(error, "retry_after", None), getattr(error, "slow", False)
        self.not_before = time.monotonic() + min(retry_after or 0.0, LONGEST_RETRY_AFTER)
        self.problem = one_line(error)
        # A store that takes no batch with some line in it is not away each time: then that is said the second time.
        if not self._particular or any(times > 1 for times, _ in self._failures.values()):
            self._said_away = True
            topic = "mend" if slow else "away"  # an outage may end in a missing bucket
            self._guard.warn_once(f"{self._url} takes no points now, they wait: {error}", topic)
        # With jitter, so that many do not come back at once.
        self.back_off((SLOW_WAIT if slow else self._wait) * _jitter.uniform(0.5, 1.0))
        return Outcome.WAIT

    def _warn_of_quarantine(self, problem: OSError) -> None:
        text = f"{self._spool.folder} cannot be written: points that {self._url} refused wait there: {problem}"
        self._guard.warn_once(text, "quarantine")


def _answered(error: Exception) -> bool:
    """Return whether what was sent may be the reason: the store answered, or failed in a way that no store should."""
    return error.answered if isinstance(error, WriteUnavailable) else not isinstance(error, OSError)
