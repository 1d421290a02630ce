"""Silence: runs without a sign of life, without captures, without scores; jobs that do not end.

Silence is counted by this machine's clock, and only while the jobs evaluate: neither a wrong clock where a run trains,
nor points that come late, nor a pause of the jobs look like death. Where this machine's clock is set back, what was
heard later than now counts as heard now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.collector.schema import COLLECTOR_HEALTH, DIED_SECONDS, GATE_SCORES, GATE_STATS, HEARTBEAT_SECONDS, RUNS
from gatewatch.jobs.alerts.series_state import NEVER, Silence
from gatewatch.jobs.findings.run_state import current_state
from gatewatch.jobs.frames import not_finite, numbers, times
from gatewatch.jobs.scoring.residuals import WARM_UP

if TYPE_CHECKING:
    import pandas as pd

HEARD: Final = (RUNS, COLLECTOR_HEALTH, GATE_STATS, GATE_SCORES)
"""The measurements that show silences, in the order in which they are read."""
LISTENING_SECONDS: Final = DIED_SECONDS
"""After a longer pause between two evaluations, silences are counted anew."""
_SPACINGS: Final = 16
"""The newest intervals between captures; their median is the usual spacing."""
_TURN_SECONDS: Final = 60.0
"""A shorter spacing of a job's turns counts as this."""
_REPORT_SECONDS: Final = 300.0
"""A job that runs reports far more often, whether its turns end or not."""


@dataclass(slots=True)
class Rhythm:
    """An event that repeats, such as a capture or the end of a turn, as reports tell of it.

    Attributes:
        count: a number that changes with each event.
        at: time of the newest event by the sender's clock; nanoseconds, as all here.
        heard: time at which it was read, by this machine's clock.
        newest, reported: time of the newest report, and when that was read.
        spacings: seconds between the newest events.
    """

    count: float | None = None
    at: int = 0
    heard: int = 0
    newest: int = 0
    reported: int = 0
    spacings: list[float] = field(default_factory=list)

    def hear(self, time: int, count: float, now: int, *, counts_events: bool) -> None:
        """Take in a report at `time`; one that is not newer than those before changes nothing.

        Args:
            time: by the sender's clock.
            count: of the report; not finite where it has none.
            now: by this machine's clock.
            counts_events: whether `count` rises by 1 with each event.
        """
        if time <= self.newest or not np.isfinite(count):
            return
        self.newest, self.reported = time, now
        if count != self.count:
            if self.count is not None:
                events = max(abs(count - self.count), 1.0) if counts_events else 1.0
                self.spacings = [*self.spacings, (time - self.at) / 1e9 / events][-_SPACINGS:]
            self.count, self.at, self.heard = count, time, now

    def shift(self, nanoseconds: int, now: int) -> None:
        """Subtract a pause of the evaluator from the silence."""
        self.heard = min(self.heard + nanoseconds, now)
        self.reported = min(self.reported + nanoseconds, now)

    def silence(self, now: int, least: float) -> float:
        """Return the time since the newest event in usual spacings, each of at least `least` seconds."""
        usual = max(float(np.median(self.spacings)) if self.spacings else 0.0, least)
        return (now - self.heard) / 1e9 / usual


@dataclass(slots=True)
class Phase:
    """The signs of life of one phase of a run.

    Attributes:
        event: its newest event; `at` is its time.
        heard: when a new event was last read.
        step: the newest step.
        captures: its captures, as the collector counts them.
        seen, newest: number of captures with finite gate values, and the time of the newest.
        scored: time of the newest score.
        waits: the time of a capture that has no score yet, and when it was first read.
    """

    event: str = ""
    at: int = 0
    heard: int = 0
    step: float | None = None
    captures: Rhythm = field(default_factory=Rhythm)
    seen: int = 0
    newest: int = NEVER
    scored: int = NEVER
    waits: tuple[int, int] | None = None

    def state(self, now: int) -> str:
        """Return live, died, or how it ended."""
        return current_state(self.event, self.silent(now))

    def silent(self, now: int) -> float:
        """Return the seconds since the last event, without the time in which the evaluator was down."""
        return max(0.0, (now - self.heard) / 1e9)

    def shift(self, nanoseconds: int, now: int) -> None:
        """Subtract a pause of the evaluator from every silence."""
        self.heard = min(self.heard + nanoseconds, now)
        self.captures.shift(nanoseconds, now)
        if self.waits is not None:
            self.waits = (self.waits[0], min(self.waits[1] + nanoseconds, now))

    def hear(self, measurement: str, points: pd.DataFrame, now: int) -> None:
        """Take in points of a measurement; those of others than `HEARD` show no silence."""
        time = times(points)
        if measurement == RUNS and int(time[-1]) > self.at and "event" in points:
            self.event, self.at, self.heard = str(points["event"].iloc[-1]), int(time[-1]), now
            step = float(numbers(points, "step")[-1])
            self.step = step if np.isfinite(step) else self.step
        elif measurement == COLLECTOR_HEALTH:
            for at, count in zip(time.tolist(), numbers(points, "captured").tolist(), strict=True):
                self.captures.hear(at, count, now, counts_events=True)
        elif measurement == GATE_STATS:
            captures = np.unique(time[not_finite(points) == 0])
            new = captures[captures > self.newest]
            if new.size:
                self.seen, self.newest = self.seen + int(new.size), int(new[-1])
        elif measurement == GATE_SCORES:
            self.scored = max(self.scored, int(time[-1]))


def silences(phase: Phase, now: int) -> Iterator[Silence]:
    """Give the silence of each measure that applies to the phase. Call it once all new points were taken in."""
    if phase.waits is not None and phase.waits[0] <= phase.scored:
        phase.waits = None
    if phase.waits is None and phase.newest > phase.scored and phase.seen > WARM_UP:
        phase.waits = (phase.newest, now)
    if not phase.event:
        return
    state = phase.state(now)
    # A run that has ended is not silent: its earlier silences are resolved with its end.
    yield Silence("run_silence", phase.silent(now) if state in ("live", "died") else 0.0, phase.at, phase.step)
    if state == "live":
        if phase.captures.count is not None:
            # A shorter spacing counts as a heartbeat's: only heartbeats show that nothing was captured.
            stalled = phase.captures.silence(now, HEARTBEAT_SECONDS)
            yield Silence("capture_silence", stalled, phase.captures.at, phase.step)
        waited, since = (0.0, now) if phase.waits is None else ((now - phase.waits[1]) / 1e9, phase.waits[0])
        yield Silence("score_delay", waited, since, phase.step)


def hear_turns(jobs: dict[str, Rhythm], health: pd.DataFrame, now: int) -> None:
    """Take in points of `jobs_health`: a job whose `duration_s` has changed has ended a turn."""
    if "job" in health:
        durations = numbers(health, "duration_s").tolist()
        for job, time, took in zip(health["job"], times(health).tolist(), durations, strict=True):
            if isinstance(job, str) and np.isfinite(took):
                jobs.setdefault(job, Rhythm()).hear(time, took, now, counts_events=False)


def turn_silence(rhythm: Rhythm, now: int, interval: float) -> Silence:
    """Return the time since a reporting job last ended a turn, in its usual spacings; 0 for one that no longer reports.

    Args:
        rhythm: of its turns.
        now: nanoseconds.
        interval: at which its turns are due, seconds.
    """
    reports = (now - rhythm.reported) / 1e9 < _REPORT_SECONDS  # a job that does not was configured away
    silence = rhythm.silence(now, max(_TURN_SECONDS, interval)) if reports else 0.0
    return Silence("turn_silence", silence, rhythm.at, None)
