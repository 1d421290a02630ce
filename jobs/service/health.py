"""How the jobs themselves fare: the points of `jobs_health`, from what they report."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gatewatch.collector.schema import JOBS_HEALTH, Point
from gatewatch.jobs.service.tasks import Turn

TOLD_SECONDS: Final = 60.0
"""A job has a point at least so often, whether it did anything or not."""
_KEPT: Final = 10_000
"""Points that wait while the store is away; past it the oldest go."""


@dataclass(slots=True)
class _Job:
    covered: float  # the beginning of the last turn that left nothing for the next
    told: float
    began: float | None = None
    heard: float = 0.0
    at: str = ""
    duration_s: float = 0.0
    windows: int = 0
    rows_read: int = 0
    points_written: int = 0
    failures: int = 0
    missed: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """A turn of a job that is going on.

    Attributes:
        job: whose.
        at: the run that it is at, as far as is known.
        seconds: since it began.
        silent: seconds since it was last heard of.
    """

    job: str
    at: str
    seconds: float
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
        self._jobs = {name: _Job(covered=now, told=now) for name in jobs}
        self._points: deque[Point] = deque(maxlen=_KEPT)

    def begun(self, job: str, now: float) -> None:
        """A turn begins."""
        with self._lock:
            counts = self._jobs[job]
            counts.began, counts.heard, counts.at = now, now, ""

    def heard(self, job: str, at: str, now: float) -> None:
        """The turn goes on; which run it is at."""
        with self._lock:
            self._jobs[job].heard, self._jobs[job].at = now, at

    def done(self, job: str, turn: Turn, now: float, time: int) -> None:
        """A turn has ended by itself, at a time in nanoseconds since the Unix epoch."""
        with self._lock:
            counts = self._jobs[job]
            began, counts.began = counts.began, None
            counts.duration_s = turn.seconds
            counts.windows += sum(done.scored for done in turn.passes)
            counts.rows_read += sum(done.rows_read for done in turn.passes)
            counts.points_written += sum(done.written for done in turn.passes)
            counts.failures += sum(done.failed is not None for done in turn.passes) + (turn.problem is not None)
            if turn.alerts is not None:
                counts.rows_read += turn.alerts.rows_read
                counts.points_written += turn.alerts.points_written
                counts.failures += turn.alerts.failures
            if began is not None and turn.problem is None and not turn.behind:
                counts.covered = began
            self._tell(job, now, time)

    def failed(self, job: str, now: float, time: int) -> None:
        """A turn has ended in an exception."""
        with self._lock:
            counts = self._jobs[job]
            if counts.began is not None:
                counts.duration_s, counts.began = now - counts.began, None
            counts.failures += 1
            self._tell(job, now, time)

    def missed(self, job: str) -> None:
        """A turn was due and did not begin."""
        with self._lock:
            self._jobs[job].missed += 1

    def running(self, now: float) -> list[Running]:
        """The turns that are going on."""
        with self._lock:
            return [
                Running(name, counts.at, now - counts.began, now - counts.heard)
                for name, counts in self._jobs.items()
                if counts.began is not None
            ]

    def take(self, now: float, time: int) -> list[Point]:
        """The points that wait to be written, one of each job that has had none for a while among them."""
        with self._lock:
            for job, counts in self._jobs.items():
                if now - counts.told >= TOLD_SECONDS:
                    self._tell(job, now, time)
            points = list(self._points)
            self._points.clear()
            return points

    def give_back(self, points: Sequence[Point]) -> None:
        """These could not be written: they wait again."""
        with self._lock:
            room = _KEPT - len(self._points)
            self._points.extendleft(reversed(points[max(0, len(points) - room) :]))

    def _tell(self, job: str, now: float, time: int) -> None:
        counts = self._jobs[job]
        counts.told = now
        lag = max(0.0, now - counts.covered)
        names = ("windows", "rows_read", "points_written", "failures", "missed")
        fields = {"duration_s": counts.duration_s, "lag_s": lag} | {name: getattr(counts, name) for name in names}
        self._points.append(Point(JOBS_HEALTH, {"job": job}, fields, time))
