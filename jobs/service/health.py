"""Health of the jobs: the points of `jobs_health`, from what the jobs report."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from gatewatch.collector.schema import JOBS_HEALTH, Point
from gatewatch.jobs.service.tasks import Turn

REPORT_SECONDS: Final = 60.0
"""Longest time between two points of a job, whether the job did anything or not."""
_KEPT: Final = 10_000
"""Maximum number of points that wait while the store is away; beyond it the oldest are dropped."""
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
    """A turn of a job that has not ended.

    Attributes:
        job: name of the job.
        at: the run that it works on; empty before the first.
        silent: seconds since the job last reported.
    """

    job: str
    at: str
    silent: float


class Health:
    """Counts what the jobs report. It is thread-safe. Times are in monotonic seconds.

    Fields of the points:

    - `duration_s`: how long the last turn took;
    - `lag_s`: upper bound of the age of the oldest capture without a score, in seconds. It is the time since the
      beginning of the last turn that left nothing undone, or since the service began if there was no such turn;
    - counts since the service began: `windows` (scores), `rows_read`, `points_written`, `failures` (of turns and runs),
      and `missed` (turns that did not begin, because the one before had not ended or no thread could be started).

    Args:
        jobs: their names.
        now: the time.
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
        """Note that the turn goes on, and which run it works on."""
        with self._lock:
            self._jobs[job].heard, self._jobs[job].at = now, at

    def done(self, job: str, turn: Turn, now: float, time: int) -> None:
        """Count what a turn did that ended without an exception; `time` is in nanoseconds since the Unix epoch."""
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

    def cut_off(self, job: str) -> None:
        """Note that the end of the process has cut off a turn, which the next service does."""
        with self._lock:
            self._jobs[job].began = None

    def missed(self, job: str) -> None:
        """Note that a turn was due and did not begin."""
        with self._lock:
            self._jobs[job].counts["missed"] += 1

    def running(self, now: float) -> list[Running]:
        """Return the turns that have not ended."""
        with self._lock:
            return [
                Running(job, state.at, now - state.heard)
                for job, state in self._jobs.items()
                if state.began is not None
            ]

    def take(self, now: float, time: int) -> list[Point]:
        """Remove and return the points to write, with one for each job that had none for `REPORT_SECONDS`."""
        with self._lock:
            for job, state in self._jobs.items():
                if now - state.reported >= REPORT_SECONDS:
                    self._add_point(job, now, time)
            points = list(self._points)
            self._points.clear()
            return points

    def give_back(self, points: Sequence[Point]) -> None:
        """Put back points that could not be written."""
        with self._lock:
            room = _KEPT - len(self._points)
            self._points.extendleft(reversed(points[max(0, len(points) - room) :]))

    def _add_point(self, job: str, now: float, time: int) -> None:
        state = self._jobs[job]
        state.reported = now
        fields = {"duration_s": state.duration_s, "lag_s": max(0.0, now - state.covered), **state.counts}
        self._points.append(Point(JOBS_HEALTH, {"job": job}, fields, time))
