"""Log each problem once when it begins and once when it has ended, however many attempts lie between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gatewatch.jobs.text import duration


@dataclass(slots=True)
class _Problem:
    since: float
    lasting: bool
    recovery: str
    sources: set[str] = field(default_factory=set)


class ProblemLog:
    """The present problems, each under a key. Safe for several threads.

    Args:
        log: takes each line.
        clock: seconds, monotonic.
    """

    def __init__(self, log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._problems: dict[str, _Problem] = {}

    def raise_problem(self, key: str, text: str, recovery: str, *, source: str = "", lasting: bool = False) -> None:
        """Log a problem when it begins, and when it turns from transient to lasting or back.

        Args:
            key: which problem.
            text: the line to log.
            recovery: the line to log when it has ended; the duration is appended.
            source: which of several parts met it; the problem ends when it has ended for all that did.
            lasting: whether it lasts until somebody changes something.
        """
        with self._lock:
            problem = self._problems.get(key)
            if problem is None:
                problem = self._problems[key] = _Problem(self._clock(), not lasting, recovery)
            problem.sources.add(source)
            changed, problem.lasting = problem.lasting != lasting, lasting
        if changed:
            self._log(text)

    def clear(self, key: str, source: str = "") -> None:
        """Note that a problem has ended for a source; nothing happens where there was none."""
        with self._lock:
            problem = self._problems.get(key)
            if problem is None:
                return
            problem.sources.discard(source)
            if problem.sources:
                return
            del self._problems[key]
        self._log(f"{problem.recovery} after {duration(self._clock() - problem.since)}")

    def __contains__(self, key: str) -> bool:
        with self._lock:
            return key in self._problems
