"""Reserve the name of a run, so that no two processes record one run, and find how far an earlier one has come."""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError, GatewatchError, WriteRejected, WriteUnavailable
from gatewatch.collector.log import log
from gatewatch.collector.run_file import RunFile, lock_run
from gatewatch.collector.run_progress import Progress
from gatewatch.collector.schema import DIED_SECONDS, GOING_EVENTS, RUNS, Point
from gatewatch.collector.spool.inspect import points_wait
from gatewatch.collector.store import Store
from gatewatch.collector.text import one_line

if TYPE_CHECKING:
    import pandas as pd

FirstEvent = Callable[[str], Point]
"""Makes the first event of a session from its name, `started` or `resumed`."""
_REMEDY: Final = "choose another, or leave run=None for a new one each time"
_ANSWER_SECONDS: Final = 2.0
"""How long a server may take to show that it is there, before it is asked for other sessions."""


class RunName:
    """The name of a run and phase in a store, and the right of this process to record under it.

    A lock keeps the other processes of this machine away, and in a SQLite file one transaction those of all machines. A
    server has neither: two that begin there at the same moment both record, and `warn_of_others` says so.

    Args:
        store: where the run is recorded.
        run: the run's id.
        phase: of the run.
        resume: whether to go on with a run of this name.

    Attributes:
        session: id of this process's part in the run: host, process and some random digits.
        earlier: how far an earlier process has recorded the run that this one goes on with; None for a new run.
    """

    def __init__(self, store: Store, run: str, phase: str, *, resume: bool) -> None:
        self._store, self._run, self._phase, self._resume = store, run, phase, resume
        self.session = f"{one_line(platform.node())}:{os.getpid()}:{secrets.token_hex(3)}"
        self.earlier: Progress | None = None
        self._file: RunFile | None = None
        self._spool_folder = Path()
        self._asked, self._looks = False, True
        self._before: dict[str, int] = {}
        self._began = 0
        self._named: set[str] = set()
        self._heartbeats, self._next_look = 0, 1

    def lock(self, store_folder: Path) -> None:
        """Keep the other processes of this machine away.

        Args:
            store_folder: the folder of the store in the spool.

        Raises:
            ConfigError: one of them records the run.
            OSError: the folder cannot be written, or its file system has no locks.
        """
        file = lock_run(store_folder, self._run, self._phase)
        if not isinstance(file, RunFile):
            raise ConfigError(self._going_on(f"process {file}") if self._resume else self._in_use(file))
        self._file, self._spool_folder = file, store_folder
        with suppress(OSError):  # the lock does without
            file.save({**file.left, "pid": os.getpid()})

    def claim(self, first: FirstEvent) -> tuple[Point, bool]:
        """Check that the store holds no run of this name and phase, or that it can be resumed, and write its event.

        Args:
            first: makes the event.

        Returns:
            The event, and whether it is in the store already; otherwise it is to be shipped like every other point.

        Raises:
            ConfigError: the name was used before, or the run cannot be resumed.
            WriteUnavailable: the store does not answer now.
        """
        left, stored = self._left, Progress()
        # Before the store is asked: what another process ships meanwhile is then seen here or there.
        waits = self._resume and left.step >= 0 and points_wait(self._spool_folder, self._run, self._phase)

        def judged(events: pd.DataFrame) -> Point:
            self._asked = True
            self._before = _sessions(events)
            if not len(events) or _never_learnt(events):
                return self._begun(first, left if waits else None)
            if not self._resume:
                raise ConfigError(self._in_use())
            self._check_ended(events)
            return self._begun(first, max(left, stored, key=lambda progress: progress.step))

        begin = getattr(self._store, "begin_run", None)
        try:
            if self._resume and isinstance(self._store, Store):  # a user's own may not tell
                stored = Progress.from_store(self._store, self._run, self._phase)
            if begin is None:
                return judged(self._read()), False
            event: Point = begin(self._run, self._phase, judged)
        except ConfigError:
            if self._asked:
                raise
            unknown = "whether it already holds a run of this name is not known"
            log.warning("gatewatch: run %r: %s cannot be read, %s", self._run, self._store.url, unknown)
            return self.claim_unasked(first), False
        except WriteRejected:
            return self._begun(first, self.earlier), False
        self._looks = False
        return event, True

    def claim_unasked(self, first: FirstEvent) -> Point:
        """Do as `claim` does where the store cannot be asked, by what this machine knows of the run.

        Args:
            first: makes the event.

        Returns:
            The event, which is to be shipped.

        Raises:
            ConfigError: this machine has recorded a run of this name, and it is not to be resumed.
        """
        left = self._left
        if left.step > 0 and not self._resume:
            raise ConfigError(self._in_use())
        return self._begun(first, left if self._resume and left.step >= 0 else None)

    def keep(self, progress: Progress) -> None:
        """Note on this machine how far the run is recorded.

        Raises:
            OSError: it cannot be written.
        """
        if self._file is not None:
            about = {"run": self._run, "phase": self._phase, "session": self.session, "pid": os.getpid()}
            self._file.save({**about, **progress.as_dict()})

    def warn_of_others(self, *, at_end: bool = False) -> None:
        """Log each other session that writes under this name too, once. Does nothing where none can.

        Call it at each heartbeat and at the end, once the first event of this session has been written. Another session
        may ship its first event at any time later, so it looks at the first heartbeat that the store answers at, then
        each time that twice as many have passed, and at the end.
        """
        self._heartbeats += 1
        if not self._looks or (self._heartbeats < self._next_look and not at_end):
            return
        try:
            if hasattr(self._store, "ping"):  # a user's own store may have none
                self._store.ping(_ANSWER_SECONDS)
            events = self._read()
        except GatewatchError as error:
            if not isinstance(error, WriteUnavailable):  # not to this token
                self._next_look = 2 * self._heartbeats
            return
        self._next_look = 2 * self._heartbeats
        others = {session for session, newest in _sessions(events).items() if self._is_beside(session, newest)}
        if others - self._named:
            log.warning(
                "gatewatch: run %r, phase %s, is recorded by another process too (%s): %s holds the points of both "
                "without telling them apart; end one of them, and give each run a name of its own",
                self._run,
                self._phase,
                ", ".join(sorted(others - self._named)),
                self._store.url,
            )
            self._named |= others

    def _is_beside(self, session: str, newest: int) -> bool:
        """Return whether a session is another than this one and those that this one follows, by its newest event."""
        if self.earlier is None and session not in self._before:
            return session != self.session
        return session != self.session and newest > max(self._began, self._before.get(session, 0))

    def release(self) -> None:
        """Let another process of this machine record the run."""
        if self._file is not None:
            self._file.release()

    @property
    def _left(self) -> Progress:
        return Progress() if self._file is None else Progress.from_dict(self._file.left)

    def _begun(self, first: FirstEvent, earlier: Progress | None) -> Point:
        self.earlier = earlier
        event = first("started" if earlier is None else "resumed")
        self._began = event.time
        return event

    def _read(self) -> pd.DataFrame:
        read = getattr(self._store, "find", self._store.read)  # a user's own store may have no `find`
        events: pd.DataFrame = read(RUNS, run=self._run, tags={"phase": self._phase}, prefix_tags=True)
        return events

    def _check_ended(self, events: pd.DataFrame) -> None:
        """Raise where the run goes on in a process of another machine; the lock has told of those of this one."""
        last = events.iloc[-1]
        session = last.get("session")
        silent = (time.time_ns() - last["time"].value) / 1e9
        here = self._file is not None and session == self._file.left.get("session")
        if last["event"] in GOING_EVENTS and not here and silent < DIED_SECONDS:
            wait = f"if it has died, try again in {DIED_SECONDS - silent:.0f} s"
            if silent <= -1:
                ahead = f"its last event lies {-silent:.0f} s in the future"
                wait = f"{ahead}: set the clock of its machine or of this one right; {wait}"
            raise ConfigError(f"{self._going_on(session or 'another process')}; {wait}")

    def _going_on(self, by: str) -> str:
        return (
            f"run={self._run!r} cannot be resumed: {by} is still recording it; end that first, or choose another name"
        )

    def _in_use(self, holder: int | None = None) -> str:
        by = "" if holder is None else f", which process {holder} records"
        return f"run={self._run!r}: {self._store.url} already holds a run of this name and phase{by}; {_REMEDY}"


def _sessions(events: pd.DataFrame) -> dict[str, int]:
    """Return the time of the newest event of each session."""
    if not len(events) or "session" not in events:
        return {}
    return {str(session): newest.value for session, newest in events.groupby("session")["time"].max().items()}


def _never_learnt(events: pd.DataFrame) -> bool:
    """Return whether the latest session of a run has ended before its first step, as did those before it."""
    latest = events.sort_values("time")["event"].iloc[-1]
    return latest in ("failed", "interrupted") and bool(events["step"].max() == 0)
