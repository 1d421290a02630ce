"""The state of alerting between two evaluations, in files that survive whatever ends the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from gatewatch.collector.file_locks import is_shared, lock_domain, seconds_since_touched, take_lock
from gatewatch.collector.files import replace_file
from gatewatch.collector.log import log
from gatewatch.collector.names import path_name
from gatewatch.jobs.alerts.lifecycle import AlertState, Event
from gatewatch.jobs.alerts.series_state import SeriesState
from gatewatch.jobs.alerts.silence import Phase, Rhythm

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_LOCK: Final = "lock"
_STATE: Final = "alerts.json"
_RUNS: Final = "runs"
_LEASE_SECONDS: Final = 300.0
"""After this long without an evaluation another machine may evaluate."""

T = TypeVar("T")
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
class WatchedRun:
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
        away: since when the store does not answer; None where it does.
        store: the state of the rule about its silence.
    """

    evaluated: int = 0
    watched: dict[str, WatchedRun] = field(default_factory=dict)
    entries: dict[str, AlertState] = field(default_factory=dict)
    mailed: dict[str, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    tries: int = 0
    not_before: int = 0
    problem: str | None = None
    away: int | None = None
    store: RunProgress = field(default_factory=RunProgress)


@contextmanager
def owned(folder: Path) -> Iterator[bool]:
    """Lock a folder for this process; give whether it is its own, which it is not while another process has it.

    Raises:
        OSError: the folder cannot be made or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0) as lock:
        yield take_lock(lock, path) and _take_lease(lock, path)


def _take_lease(lock: FileIO, path: Path) -> bool:
    """Note which machine works here, where others see the folder and perhaps no locks; return False where one did."""
    if not is_shared(path):
        return True
    holder, own = os.pread(lock.fileno(), 64, 0), lock_domain().encode()
    if holder not in (b"", own) and seconds_since_touched(path) < _LEASE_SECONDS:
        return False
    os.ftruncate(lock.fileno(), 0)
    os.pwrite(lock.fileno(), own, 0)
    return True


def save(path: Path, value: object, *, durable: bool = True) -> None:
    """Write a dataclass, or bytes, to a file whole or not at all, and make its folder where it is missing.

    Args:
        path: of the file.
        value: all of it.
        durable: whether it must survive a failure of the machine.

    Raises:
        OSError: it cannot be written; the old file is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path, durable=durable) as file:
        file.write(value if isinstance(value, bytes) else orjson.dumps(value))


def load(path: Path, kind: type[T]) -> T | None:
    """Return what a file holds as JSON of a dataclass; None where there is none.

    One that is damaged is put aside, and logged.

    Raises:
        OSError: it cannot be read.
    """
    try:
        adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # a type is hashable
        value = adapter.validate_json(path.read_bytes())
        orjson.dumps(value)  # which takes no integer of more than 64 bits, where reading does
    except FileNotFoundError:
        return None
    except (ValueError, orjson.JSONEncodeError):
        aside = path.with_suffix(".damaged")
        log.warning("gatewatch: %s is damaged; it is put aside as %s, and what it said is not known", path, aside.name)
        with suppress(OSError):
            path.replace(aside)
        return None
    return value


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415 - loads slowly

    return TypeAdapter(kind)


class StateFiles:
    """The files in a folder that keep the state. For one process at a time: see `owned`.

    Args:
        folder: of the alerts of one store; made where missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._saved = b""

    def state(self) -> State:
        """Return the state that was saved last; a new one where there is none, or where it is damaged."""
        return load(self._folder / _STATE, State) or State()

    def save(self, state: State) -> None:
        """Save the state.

        Raises:
            OSError: it cannot be written.
        """
        content = orjson.dumps(state)
        if content != self._saved:
            save(self._folder / _STATE, content)
            self._saved = content

    def run(self, name: str) -> RunProgress:
        """Return what was saved last of a run; a new one as in `state`."""
        return load(self._file(name), RunProgress) or RunProgress(name)

    def save_run(self, progress: RunProgress) -> None:
        """Save how far a run was read.

        Raises:
            OSError: it cannot be written.
        """
        save(self._file(progress.run), progress, durable=False)  # what is lost is read again

    def forget_run(self, name: str) -> None:
        """Remove what was saved of a run."""
        with suppress(OSError):
            self._file(name).unlink(missing_ok=True)

    def _file(self, run: str) -> Path:
        return self._folder / _RUNS / f"{path_name(run)}.json" if run else self._folder / "jobs.json"
