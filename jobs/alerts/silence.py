"""Silence: runs without a sign of life, without captures, without scores; jobs that do not end.

Silence is counted by the clock of who listens, and only while it listens: neither a clock that is wrong where a run
trains, nor points that come late, nor a pause of the jobs look like death.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from gatewatch.collector.schema import HEARTBEAT_SECONDS
from gatewatch.jobs.alerts.rule import Measure
from gatewatch.jobs.findings.run_state import DIED_SECONDS, life
from gatewatch.jobs.frames import numbers, times
from gatewatch.jobs.scoring.residuals import WARM_UP

if TYPE_CHECKING:
    import pandas as pd

LISTENING_SECONDS: Final = DIED_SECONDS
"""Who has not listened for longer has missed something; what was silent meanwhile is heard out anew."""
_SPACINGS: Final = 16
"""The newest distances between captures, of which the median is usual."""
_STEADY_SECONDS: Final = HEARTBEAT_SECONDS
"""A spacing below this counts as this: heartbeats are all that tells that nothing was captured."""
_TURN_SECONDS: Final = 60.0
"""The same for the turns of a job."""
_TOLD_SECONDS: Final = 300.0
"""A job that runs is told of far more often, whether its turns end or not."""


@dataclass(slots=True)
class Rhythm:
    """Something that happens again and again.

    Attributes:
        count: a number that changes with it.
        at: when it last did, by the clock of who tells; nanoseconds, as all here.
        heard: when that was heard of, by the clock of who listens.
        newest, told: the newest that was told of it, and when that was heard.
        spacings: seconds between the newest of them.
    """

    count: float | None = None
    at: int = 0
    heard: int = 0
    newest: int = 0
    told: int = 0
    spacings: list[float] = field(default_factory=list)

    def hear(self, time: int, count: float, now: int, happened: float = 1.0) -> None:
        """It has happened `happened` times since it was last told of."""
        if self.count is not None and time > self.at:
            self.spacings = [*self.spacings, (time - self.at) / 1e9 / max(happened, 1.0)][-_SPACINGS:]
        self.count, self.at, self.heard = count, time, now

    def silence(self, now: int, least: float) -> float:
        """How long nothing was heard, in usual spacings of at least so many seconds."""
        usual = max(float(np.median(self.spacings)) if self.spacings else 0.0, least)
        return (now - self.heard) / 1e9 / usual


@dataclass(slots=True)
class Phase:
    """What is known of a phase of a run.

    Attributes:
        event: the newest of its life, and its time in `at`.
        heard: when a new one was last heard of.
        step: the newest.
        captures: its captures, as the collector counts them.
        seen, newest: captures with gates, of which the values were finite, and the newest one's time.
        scored: the newest score's time.
        waits: a capture that has no score yet, and when it was seen first.
    """

    event: str = ""
    at: int = 0
    heard: int = 0
    step: float | None = None
    captures: Rhythm = field(default_factory=Rhythm)
    seen: int = 0
    newest: int | None = None
    scored: int | None = None
    waits: tuple[int, int] | None = None

    def life(self, now: int) -> str:
        """live, died, or how it ended."""
        return life(self.event, self.silent(now))

    def silent(self, now: int) -> float:
        """Seconds since something new was heard of it, of those in which there was somebody to hear."""
        return max(0.0, (now - self.heard) / 1e9)

    def shift(self, nanoseconds: int) -> None:
        """Nobody listened for so long."""
        self.heard += nanoseconds
        self.captures.heard += nanoseconds
        if self.waits is not None:
            self.waits = (self.waits[0], self.waits[1] + nanoseconds)


class Silence(NamedTuple):
    """How long nothing was heard, in the terms of a rule.

    Attributes:
        measure: of the rules that compare it.
        value: how long.
        since: when it began; nanoseconds.
        step: at that time.
    """

    measure: Measure
    value: float
    since: int
    step: float | None


def hear_events(phase: Phase, events: pd.DataFrame, now: int) -> None:
    """Take in points of `runs`."""
    if events.empty or "event" not in events:
        return
    newest = int(times(events)[-1])
    if newest > phase.at:
        phase.event, phase.at, phase.heard = str(events["event"].iloc[-1]), newest, now
        step = numbers(events, "step")[-1]
        phase.step = float(step) if np.isfinite(step) else phase.step


def hear_health(phase: Phase, health: pd.DataFrame, now: int) -> None:
    """Take in points of `collector_health`."""
    for time, count in zip(times(health).tolist(), numbers(health, "captured").tolist(), strict=True):
        known = phase.captures.count
        if time > phase.captures.at and np.isfinite(count) and count != known:
            phase.captures.hear(time, count, now, abs(count - (known or 0.0)))


def hear_captures(phase: Phase, stats: pd.DataFrame) -> None:
    """Take in points of `gate_stats`."""
    finite = np.nan_to_num(numbers(stats, "nan_count")) + np.nan_to_num(numbers(stats, "inf_count")) == 0
    found = np.unique(times(stats)[finite])
    new = found if phase.newest is None else found[found > phase.newest]
    if new.size:
        phase.seen += int(new.size)
        phase.newest = int(new[-1])


def hear_scores(phase: Phase, scores: pd.DataFrame) -> None:
    """Take in points of `gate_scores`."""
    newest = int(times(scores)[-1])
    phase.scored = newest if phase.scored is None else max(phase.scored, newest)


def silences(phase: Phase, now: int) -> Iterator[Silence]:
    """Of each rule that applies to the phase as it is, the silence. All that is new has been taken in before."""
    scored = phase.scored if phase.scored is not None else np.iinfo(np.int64).min
    if phase.waits is not None and phase.waits[0] <= scored:
        phase.waits = None
    if phase.waits is None and phase.newest is not None and phase.newest > scored and phase.seen > WARM_UP:
        phase.waits = (phase.newest, now)
    if not phase.event:
        return
    state = phase.life(now)
    # One that has ended is not silent: what it did before it died, and what it never told, is over with it.
    yield Silence("run_silence", phase.silent(now) if state in ("live", "died") else 0.0, phase.at, phase.step)
    if state == "live":
        if phase.captures.count is not None:
            stalled = phase.captures.silence(now, _STEADY_SECONDS)
            yield Silence("capture_silence", stalled, phase.captures.at, phase.step)
        waited, since = (0.0, now) if phase.waits is None else ((now - phase.waits[1]) / 1e9, phase.waits[0])
        yield Silence("score_delay", waited, since, phase.step)


def hear_turns(jobs: dict[str, Rhythm], health: pd.DataFrame, now: int) -> None:
    """Take in points of `jobs_health`: a job whose `duration_s` has changed has ended a turn."""
    if "job" not in health:
        return
    durations = numbers(health, "duration_s").tolist()
    for job, time, took in zip(health["job"], times(health).tolist(), durations, strict=True):
        if isinstance(job, str) and np.isfinite(took):
            rhythm = jobs.setdefault(job, Rhythm())
            if time > rhythm.newest:
                rhythm.newest, rhythm.told = time, now
                if took != rhythm.count:
                    rhythm.hear(time, took, now)


def turn_silence(rhythm: Rhythm, now: int, interval: float) -> Silence:
    """How long a job of which there are points has not ended a turn, in its usual spacings; 0 where there are none.

    Args:
        rhythm: of its turns.
        now: nanoseconds.
        interval: at which its turns are due, seconds.
    """
    told = (now - rhythm.told) / 1e9 < _TOLD_SECONDS  # one that is not told of was configured away
    return Silence("turn_silence", rhythm.silence(now, max(_TURN_SECONDS, interval)) if told else 0.0, rhythm.at, None)
