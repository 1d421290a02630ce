"""Scores what is new of a store beside the page, unless somebody else does it already.

Two who score one store write the same points, so it is no fault if they do; it is only work done twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError, WriteUnavailable, reason_of
from gatewatch.collector.file_locks import NoFileLocksError, take_lock
from gatewatch.collector.log import log
from gatewatch.collector.runtime.native_threads import single_threaded_blas
from gatewatch.collector.schema import JOBS_HEALTH
from gatewatch.collector.user_folders import note_store
from gatewatch.jobs.service.health import REPORT_SECONDS
from gatewatch.jobs.service.state_folder import check_state_folder
from gatewatch.jobs.service.tasks import Stopping

if TYPE_CHECKING:
    from gatewatch.collector.store import Store
    from gatewatch.jobs.scoring.scoring_pass import PassResult

INTERVAL_SECONDS: Final = 5.0
"""Time between two passes: a page is looked at, so it is shorter than that of the service."""
SERVICE_ALIVE: Final = timedelta(seconds=2 * REPORT_SECONDS)
"""`gatewatch jobs` is taken to score the store where it has said so within this time."""
LOCK: Final = "view.lock"
_QUIET_PASSES: Final = 2
"""The newest capture of a run that died is scored in the second pass that finds it unchanged."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a store is scored.

    Attributes:
        folder: of checkpoints and of the lock.
        limit: captures of a run at the most in one pass.
        false_alarm_rate: as of `run_pass`.
    """

    folder: Path
    limit: int
    false_alarm_rate: float


class Scorer:
    """Scores a store in a thread of its own.

    Args:
        store: is read and written; no other thread may use it.
        settings: how it is scored.
        now: the time of day, with a zone.
        interval: seconds between two passes.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._store, self._settings, self._now, self._interval = store, settings, now, interval
        self._ended = threading.Event()
        self._lock: FileIO | None = None
        self._scored: dict[str, str] | None = None
        self._quiet = 0
        self._said = "This page scores the store."
        self._thread = threading.Thread(target=self._work, name="scorer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, seconds: float = 5.0) -> None:
        """Let the thread end after the run that it scores, and give up the lock."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        if self._lock is not None:
            self._lock.close()

    def status(self) -> str:
        """Say who scores the store, and what is wrong with that, in a sentence."""
        return self._said

    def turn(self) -> None:
        """Score what is new once, where that is this process's to do; what is wrong becomes the status."""
        try:
            self._said = self._turn()
        except (ConfigError, WriteUnavailable) as error:
            self._said = f"The scores wait: {error}"
        except Stopping:
            pass
        except Exception as error:
            if not self._said.startswith("Scoring failed"):
                log.warning("gatewatch view: scoring failed: %s", reason_of(error))
            self._said = f"Scoring failed: {reason_of(error)}"

    def _work(self) -> None:
        with single_threaded_blas():
            while not self._ended.is_set():
                self.turn()
                self._ended.wait(self._interval)

    def _turn(self) -> str:
        if not self._store.exists():
            return "Scores begin with the first run."
        if self._service_scores():
            return "gatewatch jobs scores this store."
        if not self._is_own():
            return "Another gatewatch view on this machine scores this store."
        revisions = self._store.revisions()
        self._quiet = self._quiet + 1 if revisions == self._scored else 0
        if self._quiet < _QUIET_PASSES:
            failed = [done for done in self._pass() if done.failed is not None]
            self._scored = revisions
            if failed:
                return f"The run {failed[0].run} cannot be scored: {failed[0].failed}"
        return "This page scores the store."

    def _service_scores(self) -> bool:
        newest = self._store.newest(JOBS_HEALTH)
        if newest.empty or "job" not in newest:
            return False
        scores = newest["job"].str.startswith("score", na=False)
        return bool((newest["time"][scores] > self._now() - SERVICE_ALIVE).any())

    def _is_own(self) -> bool:
        """Return whether this process holds the lock; where there are no locks, it scores whoever else does."""
        if self._lock is not None:
            return True
        check_state_folder(self._settings.folder)
        with suppress(OSError):
            note_store(self._settings.folder, self._store.destination)
        path = self._settings.folder / LOCK
        file = FileIO(path, "a")
        with suppress(NoFileLocksError):
            if not take_lock(file, path):
                file.close()
                return False
        self._lock = file
        return True

    def _pass(self) -> list[PassResult]:
        from gatewatch.jobs.scoring.scoring_pass import run_pass  # noqa: PLC0415 - scikit-learn loads slowly, and the page is there before

        return run_pass(
            self._store,
            progress=self._go_on,
            state=self._settings.folder,
            finish=False,
            limit=self._settings.limit,
            false_alarm_rate=self._settings.false_alarm_rate,
        )

    def _go_on(self, run: str, number: int, total: int) -> None:
        if self._ended.is_set():
            raise Stopping
