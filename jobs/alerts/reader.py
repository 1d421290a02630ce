"""Reads what is new of runs and jobs, and finds what fires."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import COLLECTOR_HEALTH, GATE_SCORES, GATE_STATS, JOBS_HEALTH, RUNS
from gatewatch.collector.times import nanoseconds
from gatewatch.jobs.alerts import silence as watch
from gatewatch.jobs.alerts.evaluator import Judge
from gatewatch.jobs.alerts.lifecycle import Alert
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.state import Cursor, Memory, RunMemory, State, Watched
from gatewatch.jobs.alerts.values import units_by_layer
from gatewatch.jobs.frames import times

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.collector.config import Settings
    from gatewatch.collector.store import Store

SETTLED_SECONDS: Final = 3600.0
"""A run that has ended, and of which nothing new came for so long, is read no more until something is heard of it."""
_SPAN: Final = 3600 * 10**9
"""What is read at once of a run that is long: an hour."""
_FIRST: Final = (RUNS, COLLECTOR_HEALTH, GATE_STATS, GATE_SCORES)
"""What tells who is silent, in the order in which it is taken in."""


@dataclass(slots=True)
class Observed:
    """What an evaluation found.

    Attributes:
        alerts: that have begun, changed or ended.
        memories: what is to be remembered of who was read.
        live: run and phase → whether it goes on.
        rows: how many were read.
        failed: run → why it could not be judged.
        forgotten: runs that were not heard of for so long that they are watched no more.
    """

    alerts: list[Alert] = field(default_factory=list)
    memories: list[RunMemory] = field(default_factory=list)
    live: dict[tuple[str, str], bool] = field(default_factory=dict)
    rows: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)


class Observer:
    """One evaluation.

    Args:
        store: that is read.
        rules: that are judged.
        settings: how far back runs are watched; how often the jobs run.
        memory: what the evaluations before have left; only read here.
        state: likewise; `watched` is brought up to date.
        now: nanoseconds.
    """

    def __init__(
        self, store: Store, rules: Sequence[Rule], settings: Settings, memory: Memory, state: State, now: int
    ) -> None:
        self._store, self._rules, self._memory, self._state, self._now = store, rules, memory, state, now
        self._lookback = int(settings.alerts.lookback_hours * 3600e9)
        self._interval = settings.jobs.interval_seconds
        others = dict.fromkeys(rule.measurement for rule in rules if rule.measurement not in (*_FIRST, JOBS_HEALTH))
        self._measurements = (*_FIRST, *others)
        deaf = now - state.evaluated if state.evaluated else 0
        self._deaf = deaf if deaf > watch.LISTENING_SECONDS * 1e9 else 0
        self._found = Observed()

    def observe(self) -> Observed:
        """Read and judge everything that is watched. A run that cannot be judged does not hold up the others.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        for row in self._store.runs().to_dict("records"):
            name, last_seen = str(row["run"]), nanoseconds(row["last_seen"])
            if self._now - last_seen > self._lookback:
                continue
            watched = self._state.watched.setdefault(name, Watched(heard=self._now))
            if watched.last_seen != last_seen:
                watched.last_seen, watched.heard = last_seen, self._now
            elif not watched.live and self._now - watched.heard > SETTLED_SECONDS * 1e9:
                continue
            try:
                self._run(name, row, watched)
            except (WriteUnavailable, ConfigError):
                raise
            except Exception as error:  # one run's points are odd: the others are judged all the same
                self._found.failed[name] = f"{type(error).__name__}: {error}"
        for name, watched in list(self._state.watched.items()):
            if self._now - watched.last_seen > self._lookback:
                del self._state.watched[name]
                self._found.forgotten.append(name)
        self._jobs()
        return self._found

    def _run(self, name: str, row: Mapping[Any, Any], watched: Watched) -> None:
        memory = self._memory.run(name)
        memory.units = memory.units or units_by_layer(_config(row["config"]))
        begun = _known(row["started"], watched.last_seen)
        judge = Judge(self._rules, memory, self._now)
        live = {}
        for phase_name in str(row["phases"] or "").split(","):
            tags = {"phase": phase_name} if phase_name else {}
            phase = memory.phases.setdefault(phase_name, watch.Phase())
            phase.shift(self._deaf)
            for measurement in self._measurements:
                cursor = f"{measurement}\n{phase_name}"
                before = memory.cursors.get(cursor)
                for frame in self._new(measurement, name, tags, before, begun):
                    _hear(phase, measurement, frame, self._now)
                    judge.points(measurement, frame)
                    memory.cursors[cursor] = _moved(memory.cursors.get(cursor), before, int(times(frame)[-1]))
                    watched.heard = self._now
                memory.cursors.setdefault(cursor, (None, None))
            for silence in watch.silences(phase, self._now):
                judge.silence(silence, {"run": name, **tags})
            live[phase_name] = phase.life(self._now) == "live"
        watched.live = any(live.values())
        self._found.live |= {(name, phase): lives for phase, lives in live.items()}
        for alert in judge.alerts.values():  # a death is told again while it lasts, what a run left behind is not
            lives = live.get(alert.tags.get("phase", ""), watched.live) or alert.rule.name == "run_died"
            self._found.alerts.append(replace(alert, live=lives))
        self._found.memories.append(memory)

    def _new(
        self, measurement: str, run: str, tags: Mapping[str, str], cursor: Cursor | None, begun: int
    ) -> Iterator[pd.DataFrame]:
        """Points that were not read twice yet: the first time may have been in the middle of a write.

        What is much is read hour by hour. Of a run that is met when it has long begun, what lies further back than
        runs are watched is left out.
        """
        start, last = cursor or (None, None)
        spans: list[tuple[int | None, int | None]] = [(start, None)]
        if cursor is None:
            spans = [(None, begun), *_hours(max(begun, self._now - self._lookback), self._now)]
        elif self._deaf and start is not None and start >= begun:  # what is of market time lies before
            spans = list(_hours(start, self._now))
        for begin, end in spans:
            frame = self._store.read(measurement, run=run, start=begin, stop=end, tags=tags, prefix_tags=True)
            self._found.rows += len(frame)
            if len(frame) and (start is None or not start == last == int(times(frame)[-1])):
                yield frame

    def _jobs(self) -> None:
        memory = self._memory.run("")
        judge = Judge(self._rules, memory, self._now)
        before, last = memory.cursors.get(JOBS_HEALTH, (None, None))
        since = self._now - _SPAN if before is None else before
        frame = self._store.read(JOBS_HEALTH, start=since, prefix_tags=True)
        self._found.rows += len(frame)
        for rhythm in memory.jobs.values():
            rhythm.heard += self._deaf
        if len(frame):
            watch.hear_turns(memory.jobs, frame, self._now)
            judge.points(JOBS_HEALTH, frame)
            memory.cursors[JOBS_HEALTH] = (last, int(times(frame)[-1]))
        for job, rhythm in memory.jobs.items():
            judge.silence(watch.turn_silence(rhythm, self._now, self._interval), {"job": job})
        self._found.alerts += judge.alerts.values()
        self._found.memories.append(memory)


def _hear(phase: watch.Phase, measurement: str, frame: pd.DataFrame, now: int) -> None:
    if measurement == RUNS:
        watch.hear_events(phase, frame, now)
    elif measurement == COLLECTOR_HEALTH:
        watch.hear_health(phase, frame, now)
    elif measurement == GATE_STATS:
        watch.hear_captures(phase, frame)
    elif measurement == GATE_SCORES:
        watch.hear_scores(phase, frame)


def _hours(start: int, now: int) -> Iterator[tuple[int, int | None]]:
    while now - start > _SPAN:
        yield start, start + _SPAN
        start += _SPAN
    yield start, None


def _moved(cursor: Cursor | None, before: Cursor | None, newest: int) -> Cursor:
    """Where to read from the next time, and the newest point, which may be one of several parts that were read."""
    last = newest if cursor is None or cursor[1] is None else max(cursor[1], newest)
    return (last if before is None else before[1], last)


def _known(moment: Any, otherwise: int) -> int:
    return otherwise if moment != moment else nanoseconds(moment)  # noqa: PLR0124 - NaT is not itself


def _config(text: object) -> Mapping[str, Any]:
    try:
        found = json.loads(str(text))
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}
