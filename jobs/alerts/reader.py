"""Read the new points of runs and jobs, and evaluate the rules for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import JOBS_HEALTH
from gatewatch.collector.times import nanoseconds
from gatewatch.jobs.alerts.evaluator import Evaluator, units_by_layer
from gatewatch.jobs.alerts.lifecycle import Alert, is_within
from gatewatch.jobs.alerts.rule import Rule
from gatewatch.jobs.alerts.silence import HEARD, LISTENING_SECONDS, Phase, hear_turns, silences, turn_silence
from gatewatch.jobs.alerts.state import Cursor, RunProgress, State, StateFiles, WatchedRun
from gatewatch.jobs.findings.series import config_of
from gatewatch.jobs.frames import times

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.collector.config import Settings
    from gatewatch.collector.store import Store

SETTLED_SECONDS: Final = 3600.0
"""An ended run that has had no new points for this long is not read until it has new ones."""
_SPAN: Final = 3600 * 10**9
"""A long run is read in pieces of one hour: nanoseconds."""


@dataclass(slots=True)
class ReadResult:
    """What a reader has read, and the alerts that follow from it.

    Attributes:
        alerts: the alerts that have begun, changed or ended.
        progress: the progress of each run that was read, to be saved.
        states: run → phase → whether it is live, died, or how it ended; see `current_state`.
        rows: number of rows that were read.
        failed: run → why it could not be evaluated.
        forgotten: runs that were silent for so long that they are no longer watched.
        runs: run → its row of `store.runs()`, of every run of the store.
    """

    alerts: list[Alert] = field(default_factory=list)
    progress: list[RunProgress] = field(default_factory=list)
    states: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    runs: dict[str, Mapping[Any, Any]] = field(default_factory=dict)


class Reader:
    """Reads the new points of every watched run and of the jobs, and evaluates the rules for them, once.

    It writes nothing: the result has the alerts, and the progress that the caller saves.

    Args:
        store: the store that is read.
        rules: the active rules.
        settings: says how far back runs are watched, and how often the jobs run.
        files: the saved progress of earlier evaluations; it is only read here.
        state: the state of earlier evaluations; its `watched` is updated.
        now: the time, in nanoseconds.
    """

    def __init__(
        self, store: Store, rules: Sequence[Rule], settings: Settings, files: StateFiles, state: State, now: int
    ) -> None:
        self._store, self._rules, self._files, self._state, self._now = store, rules, files, state, now
        self._lookback = int(settings.alerts.lookback_hours * 3600e9)
        self._interval = settings.jobs.interval_seconds
        measurements = dict.fromkeys((*HEARD, *(rule.quantity.measurement for rule in rules)))
        self._measurements = [measurement for measurement in measurements if measurement != JOBS_HEALTH]
        pause = now - state.evaluated if state.evaluated else 0
        self._pause = pause if pause > LISTENING_SECONDS * 1e9 else 0
        self._result = ReadResult()

    def read(self) -> ReadResult:
        """Read every watched run and the jobs, and evaluate the rules. If a run fails, the others are still evaluated.

        Raises:
            WriteUnavailable: the store does not answer.
            ConfigError: reading is not allowed.
        """
        for row in self._store.runs().to_dict("records"):
            name, last_seen = str(row["run"]), nanoseconds(row["last_seen"])
            self._result.runs[name] = row
            if self._now - last_seen > self._lookback:
                continue
            watched = self._state.watched.setdefault(name, WatchedRun(heard=self._now))
            if watched.last_seen != last_seen:
                watched.last_seen, watched.heard = last_seen, self._now
            elif not watched.live and not is_within(self._now, watched.heard, SETTLED_SECONDS):
                continue
            try:
                self._run(name, row, watched)
            except (WriteUnavailable, ConfigError):
                raise
            except Exception as error:  # one run's points are odd: the others are still evaluated
                self._result.failed[name] = f"{type(error).__name__}: {error}"
        for name, watched in list(self._state.watched.items()):
            if self._now - watched.last_seen > self._lookback:
                del self._state.watched[name]
                self._result.forgotten.append(name)
        self._jobs()
        return self._result

    def _run(self, name: str, row: Mapping[Any, Any], watched: WatchedRun) -> None:
        progress = self._files.run(name)
        progress.units = progress.units or units_by_layer(config_of(row["config"]))
        started = row["started"]
        begun = nanoseconds(started) if started == started else watched.last_seen  # noqa: PLR0124 - NaT is not itself
        evaluator = Evaluator(self._rules, progress, self._now)
        states = {}
        for phase_name in str(row["phases"] or "").split(","):
            tags = {"phase": phase_name} if phase_name else {}
            phase = progress.phases.setdefault(phase_name, Phase())
            phase.shift(self._pause, self._now)
            for measurement in self._measurements:
                key = f"{measurement}\n{phase_name}"
                cursor = progress.cursors.get(key)
                newest = None if cursor is None else cursor[1]
                for frame in self._new(measurement, name, tags, cursor, begun):
                    phase.hear(measurement, frame, self._now)
                    evaluator.points(measurement, frame)
                    newest, watched.heard = int(times(frame)[-1]), self._now
                progress.cursors[key] = (newest if cursor is None else cursor[1], newest)
            for silence in silences(phase, self._now):
                evaluator.silence(silence, {"run": name, **tags})
            states[phase_name] = phase.state(self._now)
        watched.live = "live" in states.values()
        self._result.states[name] = states
        self._result.alerts += evaluator.alerts.values()
        self._result.progress.append(progress)

    def _new(
        self, measurement: str, run: str, tags: Mapping[str, str], cursor: Cursor | None, begun: int
    ) -> Iterator[pd.DataFrame]:
        """Yield the points that were not read twice yet: the first read may have been in the middle of a write.

        A long run is read hour by hour. When a run is read for the first time, only the last `lookback_hours` are read.
        """
        start, last = cursor or (None, None)
        spans: Iterable[tuple[int | None, int | None]] = [(start, None)]
        if cursor is None:
            spans = [(None, begun), *_hours(max(begun, self._now - self._lookback), self._now)]
        elif self._pause and start is not None and start >= begun:  # what is of market time lies before
            # After a longer pause, such as a clock that jumps by years, the rest comes in one piece.
            spans = _hours(start, min(self._now, start + self._lookback))
        for begin, end in spans:
            frame = self._store.find(measurement, run=run, start=begin, stop=end, tags=tags, prefix_tags=True)
            self._result.rows += len(frame)
            if len(frame) and (start is None or not start == last == int(times(frame)[-1])):
                yield frame

    def _jobs(self) -> None:
        progress = self._files.run("")
        evaluator = Evaluator(self._rules, progress, self._now)
        before, last = progress.cursors.get(JOBS_HEALTH, (None, None))
        since = self._now - _SPAN if before is None else before
        frame = self._store.find(JOBS_HEALTH, start=since, prefix_tags=True)
        self._result.rows += len(frame)
        for rhythm in progress.jobs.values():
            rhythm.shift(self._pause, self._now)
        if len(frame):
            hear_turns(progress.jobs, frame, self._now)
            evaluator.points(JOBS_HEALTH, frame)
            progress.cursors[JOBS_HEALTH] = (last, int(times(frame)[-1]))
        for job, rhythm in progress.jobs.items():
            evaluator.silence(turn_silence(rhythm, self._now, self._interval), {"job": job})
        self._result.alerts += evaluator.alerts.values()
        self._result.progress.append(progress)


def _hours(start: int, now: int) -> Iterator[tuple[int | None, int | None]]:
    return pairwise([*range(start, max(now, start + 1), _SPAN), None])
