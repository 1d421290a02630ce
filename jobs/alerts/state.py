"""The state of alerting between two evaluations, in files that survive whatever ends the process."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from gatewatch.collector.names import path_name
from gatewatch.jobs.alerts.files import load, write_whole
from gatewatch.jobs.alerts.lifecycle import AlertState, Event
from gatewatch.jobs.alerts.series_state import SeriesState
from gatewatch.jobs.alerts.silence import Phase, Rhythm

_STATE: Final = "alerts.json"
_RUNS: Final = "runs"

Cursor = tuple[int | None, int | None]
"""The newest point's time, as of the evaluation before the last and as of the last; None where there was none."""


@dataclass(slots=True)
class RunProgress:
    """How far a run was read, and the state of its series; or that of the jobs, with an empty name.

    Attributes:
        run: its name.
        cursors: measurement and phase → how far it was read.
        series: rule and series → its state.
        phases: phase → its signs of life.
        jobs: job → the ends of its turns.
        units: layer → how many units it has.
    """

    run: str = ""
    cursors: dict[str, Cursor] = field(default_factory=dict)
    series: dict[str, SeriesState] = field(default_factory=dict)
    phases: dict[str, Phase] = field(default_factory=dict)
    jobs: dict[str, Rhythm] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Watched:
    """Whether a run is still read.

    Attributes:
        last_seen: its newest sign of life.
        heard: when something new of it was last read.
        live: whether a phase of it goes on.
    """

    last_seen: int = 0
    heard: int = 0
    live: bool = True


@dataclass(slots=True)
class State:
    """The state of all alerts.

    Attributes:
        evaluated: when the rules were last evaluated; nanoseconds, as all here.
        watched: run → whether it is still read.
        entries: alert → its state.
        mailed: run → when a mail about it was last written.
        events: points of `alert_events` that are not in the store yet.
        tries, not_before: attempts at the mail server that failed in a row, and when to try again.
        problem: why the last one failed.
        refused: mails that a server has refused for good.
        away: since when the store does not answer; None where it does.
        store: the state of the rule about its silence.
    """

    evaluated: int = 0
    watched: dict[str, Watched] = field(default_factory=dict)
    entries: dict[str, AlertState] = field(default_factory=dict)
    mailed: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    tries: int = 0
    not_before: int = 0
    problem: str | None = None
    refused: int = 0
    away: int | None = None
    store: SeriesState = field(default_factory=SeriesState)


class StateFiles:
    """The files in a folder that keep the state. For one process at a time: see `owned`.

    Args:
        folder: of the alerts of one store; made where missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._saved = b""

    def state(self) -> State:
        """Return the state that was saved last; a new one where there is none, or where it is damaged."""
        return load(self.folder / _STATE, State) or State()

    def save(self, state: State) -> None:
        """Save it.

        Raises:
            OSError: it cannot be written.
        """
        content = orjson.dumps(state)
        if content != self._saved:
            write_whole(self.folder / _STATE, content)
            self._saved = content

    def run(self, name: str) -> RunProgress:
        """Return what was saved last of a run; a new one as in `state`."""
        return load(self._file(name), RunProgress) or RunProgress(name)

    def save_run(self, progress: RunProgress) -> None:
        """Save it.

        Raises:
            OSError: it cannot be written.
        """
        write_whole(self._file(progress.run), orjson.dumps(progress), durable=False)  # what is lost is read again

    def forget_run(self, name: str) -> None:
        """Remove what was saved of a run."""
        with suppress(OSError):
            self._file(name).unlink(missing_ok=True)

    def _file(self, run: str) -> Path:
        return self.folder / _RUNS / f"{path_name(run)}.json" if run else self.folder / "jobs.json"
