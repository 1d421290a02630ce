"""How the jobs themselves fare: the points of `jobs_health`, from what they report."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gatewatch.collector.schema import JOBS_HEALTH, Point
from gatewatch.jobs.service.tasks import Turn

TOLD_SECONDS: Final = 60.0
"""A job has a point at least so often, whether it did anything or not."""
_KEPT: Final = 10_000
"""Points that wait while the store is away; past it the oldest go."""
_COUNTS: Final = ("windows", "rows_read", "points_written", "failures", "missed")


@dataclass(slots=True)
class _Job:
    covered: float  # the beginning of the last turn that left nothing for the next
    reported: float
    began: float | None = None
    heard: float = 0.0
    at: str = ""
    duration_s: float = 0.0
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_COUNTS, 0)))


class Running(NamedTuple):
    """A turn of a job that is going on.

    Attributes:
        job: whose.
        at: the run that it is at; empty before the first.
        silent: seconds since it was last heard of.
    """

    job: str
    at: str
    silent: float


class Health:
    """Counts what the jobs report. For any number of threads; moments are given in monotonic seconds.

    Of the fields `duration_s` is how long the last turn took; `lag_s` is how long the oldest capture that has no score
    may have waited at the most: since the last turn began that left nothing behind, or else since the service began;
    the others count since the service began: scores, rows read, points written, turns and runs that failed, and turns
    that were not begun because one was still going on, or too late.

    Args:
        jobs: their names.
        now: the moment.
    """

    def __init__(self, jobs: Iterable[str], now: float) -> None:
        self._lock = threading.Lock()
        self._jobs = {name: _Job(covered=now, reported=now) for name in jobs}
        self._points: deque[Point] = deque(maxlen=_KEPT)

    def begun(self, job: str, now: float) -> None:
        """Note that a turn begins."""
        with self._lock:
            state = self._jobs[job]
            state.began, state.heard, state.at = now, now, ""

    def heard(self, job: str, at: str, now: float) -> None:
        """Note that the turn goes on, and which run it is at."""
        with self._lock:
            self._jobs[job].heard, self._jobs[job].at = now, at

    def done(self, job: str, turn: Turn, now: float, time: int) -> None:
        """Count what a turn did that has ended by itself, at a time in nanoseconds since the Unix epoch."""
        with self._lock:
            state, alerts = self._jobs[job], turn.alerts
            began, state.began = state.began, None
            state.duration_s = turn.seconds
            state.counts["failures"] += turn.problem is not None
            for done in turn.passes:
                state.counts.update(windows=done.scored, rows_read=done.rows_read, points_written=done.written)
                state.counts["failures"] += done.failed is not None
            if alerts is not None:
                read, written = alerts.rows_read, alerts.points_written
                state.counts.update(rows_read=read, points_written=written, failures=alerts.failures)
            if began is not None and turn.problem is None and not turn.behind:
                state.covered = began
            self._add_point(job, now, time)

    def failed(self, job: str, now: float, time: int) -> None:
        """Note that a turn has ended in an exception."""
        with self._lock:
            state = self._jobs[job]
            if state.began is not None:
                state.duration_s, state.began = now - state.began, None
            state.counts["failures"] += 1
            self._add_point(job, now, time)

    def missed(self, job: str) -> None:
        """Note that a turn was due and did not begin."""
        with self._lock:
            self._jobs[job].counts["missed"] += 1

    def running(self, now: float) -> list[Running]:
        """Return the turns that are going on."""
        with self._lock:
            return [
                Running(job, state.at, now - state.heard)
                for job, state in self._jobs.items()
                if state.began is not None
            ]

    def take(self, now: float, time: int) -> list[Point]:
        """Take the points that wait to be written, one of each job that has had none for a while among them."""
        with self._lock:
            for job, state in self._jobs.items():
                if now - state.reported >= TOLD_SECONDS:
                    self._add_point(job, now, time)
            points = list(self._points)
            self._points.clear()
            return points

    def give_back(self, points: Sequence[Point]) -> None:
        """Keep points that could not be written: they wait again."""
        with self._lock:
            room = _KEPT - len(self._points)
            self._points.extendleft(reversed(points[max(0, len(points) - room) :]))

    def _add_point(self, job: str, now: float, time: int) -> None:
        state = self._jobs[job]
        state.reported = now
        fields = {"duration_s": state.duration_s, "lag_s": max(0.0, now - state.covered), **state.counts}
        self._points.append(Point(JOBS_HEALTH, {"job": job}, fields, time))
