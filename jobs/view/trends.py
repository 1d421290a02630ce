"""Keeps the trends of all runs up to date, in a thread of its own: those that changed, the newest run first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping

from gatewatch.collector.errors import ConfigError, WriteUnavailable, reason_of
from gatewatch.collector.log import log
from gatewatch.jobs.view.trend import Trend

Update = Callable[[str, Trend], Trend]
"""Run and its trend before → its trend."""


class Trends:
    """The trends that are known, and the thread that reads what is new.

    Args:
        update: reads the trend of a run; it may raise what a store raises.
    """

    def __init__(self, update: Update) -> None:
        self._update = update
        self._changed = threading.Condition()
        self._wanted: dict[str, str] = {}
        self._going: frozenset[str] = frozenset()
        self._known: dict[str, tuple[str, Trend]] = {}
        self._failed: dict[str, str] = {}
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="trends", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Let the thread end after the run that it reads."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(5.0)

    def want(self, revisions: Mapping[str, str], going: Collection[str]) -> None:
        """Say which runs there are.

        Args:
            revisions: run → its revision, in the order in which they are to be read.
            going: the runs that go on: of these only what is new is read. One that has ended changes when it is scored
                again, so it is read again.
        """
        with self._changed:
            self._wanted, self._going = dict(revisions), frozenset(going)
            self._known = {run: known for run, known in self._known.items() if run in revisions}
            self._failed = {run: revision for run, revision in self._failed.items() if revisions.get(run) == revision}
            self._changed.notify()

    def known(self) -> tuple[dict[str, Trend], int]:
        """Return the trends so far, which may be older than what was wanted; and how many runs have none yet."""
        with self._changed:
            trends = {run: trend for run, (_, trend) in self._known.items()}
            return trends, sum(run not in trends and run not in self._failed for run in self._wanted)

    def _next(self) -> tuple[str, str] | None:
        """Return the first run whose trend is not that of its revision; those without any come first."""
        behind = [
            (run, revision)
            for run, revision in self._wanted.items()
            if self._known.get(run, ("",))[0] != revision and self._failed.get(run) != revision
        ]
        return min(behind, key=lambda each: each[0] in self._known, default=None)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._ended and (wanted := self._next()) is None:
                    self._changed.wait()
                if self._ended or wanted is None:
                    return
                run, revision = wanted
                last = self._known[run][1] if run in self._known and run in self._going else Trend()
            try:
                trend = self._update(run, last)
            except Exception as error:
                if not isinstance(error, WriteUnavailable | ConfigError):  # those the page shows
                    log.warning("gatewatch view: the scores of run %r cannot be listed: %s", run, reason_of(error))
                with self._changed:
                    self._failed[run] = revision
            else:
                with self._changed:
                    self._known[run] = (revision, trend)
