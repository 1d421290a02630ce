"""Reserve the name of a run, so that no two processes record one run."""

from __future__ import annotations

import logging
import os
import platform
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from gatewatch.collector.errors import ConfigError, GatewatchError, WriteRejected
from gatewatch.collector.run_file import RunFile, lock_run
from gatewatch.collector.schema import RUNS, Point
from gatewatch.collector.store import Store
from gatewatch.collector.text import one_line

if TYPE_CHECKING:
    import pandas as pd

_REMEDY = "choose another, or leave run=None for a new one each time"

log = logging.getLogger("gatewatch")


class RunName:
    """The name of a run and phase in a store, and the right of this process to record under it.

    A lock keeps the other processes of this machine away, and in a SQLite file one transaction those of all machines. A
    server has neither: two that begin there at the same moment both record, and `warn_of_others` says so.

    Args:
        store: where the run is recorded.
        run: the run's id.
        phase: of the run.

    Attributes:
        session: id of this process's part in the run: host, process and some random digits.
    """

    def __init__(self, store: Store, run: str, phase: str) -> None:
        self._store, self._run, self._phase = store, run, phase
        self.session = f"{one_line(platform.node())}:{os.getpid()}:{secrets.token_hex(3)}"
        self._file: RunFile | None = None
        self._asked = False
        self._earlier: set[str] = set()
        self._unverified = True

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
            raise ConfigError(self._in_use(f", which process {file} records" if file else ""))
        self._file = file
        with suppress(OSError):  # the lock does without
            file.save({"run": self._run, "phase": self._phase, "session": self.session, "pid": os.getpid()})

    def claim(self, started: Point) -> bool:
        """Check that the store holds no run of this name and phase, and write its first event.

        Args:
            started: that event.

        Returns:
            Whether it is written; otherwise it is to be shipped like every other point.

        Raises:
            ConfigError: the name was used before.
            WriteUnavailable: the store does not answer now.
        """

        def first(events: pd.DataFrame) -> Point:
            if not self._asked:
                self._earlier, self._asked = _sessions(events), True
            if len(events) and not _never_learnt(events):
                raise ConfigError(self._in_use())
            return started

        begin = getattr(self._store, "begin_run", None)
        try:
            if begin is None:
                first(self._read())
                return False
            begin(self._run, self._phase, first)
        except ConfigError:
            if self._asked:
                raise
            self._unverified = False
            unknown = "whether it already holds a run of this name is not known"
            log.warning("gatewatch: run %r: %s cannot be read, %s", self._run, self._store.url, unknown)
            return False
        except WriteRejected:
            return False
        self._unverified = False
        return True

    def warn_of_others(self) -> None:
        """Log it where another session writes under this name too. Does nothing once the store has been asked.

        Call it after the first event of this session has been written.
        """
        if not self._unverified:
            return
        try:
            events = self._read()
        except GatewatchError:  # it does not answer now, or never to this token
            return
        self._unverified = False
        sessions = _sessions(events) - self._earlier - {self.session}
        if sessions:
            log.warning(
                "gatewatch: run %r, phase %s, is recorded by another process too (%s): %s holds the points of both "
                "without telling them apart; end one of them, and give each run a name of its own",
                self._run,
                self._phase,
                ", ".join(sorted(sessions)),
                self._store.url,
            )

    def release(self) -> None:
        """Let another process of this machine record the run."""
        if self._file is not None:
            self._file.release()

    def _read(self) -> pd.DataFrame:
        return self._store.read(RUNS, run=self._run, tags={"phase": self._phase}, prefix_tags=True)

    def _in_use(self, by: str = "") -> str:
        return f"run={self._run!r}: {self._store.url} already holds a run of this name and phase{by}; {_REMEDY}"


def _sessions(events: pd.DataFrame) -> set[str]:
    return set(events["session"].dropna()) if len(events) and "session" in events else set()


def _never_learnt(events: pd.DataFrame) -> bool:
    return bool(set(events["event"]) & {"failed", "interrupted"}) and bool(events["step"].max() == 0)
