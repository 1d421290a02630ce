"""Run jobs at intervals of a monotonic clock: the system's time of day may jump, by an hour or by years."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class _Job:
    seconds: float
    work: Callable[[], None]
    due: float
    thread: threading.Thread | None = None


class IntervalScheduler:
    """Starts each job when it is due, in a daemon thread of its own: one that hangs in a call keeps no process alive.

    A job is due at once and then at each interval. It misses a turn where the turn before has not ended. Turns whose
    time has passed, as while the machine was suspended, are not made up for: one turn does all that has come up.

    Args:
        missed: called with the name of a job that was due and did not start, and with the reason where that is not
            that its last turn has not ended.
        clock: seconds, monotonic.
    """

    def __init__(self, missed: Callable[[str, str | None], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._missed = missed
        self._clock = clock
        self._jobs: dict[str, _Job] = {}

    def add(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        """Add a job that is due now and then each time that so many seconds have passed."""
        self._jobs[name] = _Job(seconds, work, self._clock())

    def start_due(self) -> None:
        """Start the jobs that are due. Call it often: nothing starts by itself."""
        now = self._clock()
        for name, job in self._jobs.items():
            if now < job.due:
                continue
            job.due += job.seconds * ((now - job.due) // job.seconds + 1)
            if job.thread is not None and job.thread.is_alive():
                self._missed(name, None)
                continue
            job.thread = threading.Thread(target=job.work, name=name, daemon=True)
            try:
                job.thread.start()
            except (RuntimeError, MemoryError) as error:  # the system has no thread or no memory now
                job.thread = None
                self._missed(name, str(error) or type(error).__name__)
