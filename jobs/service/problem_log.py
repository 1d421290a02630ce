"""What goes wrong is said once when it begins and once when it is over, however many attempts lie between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Trouble:
    since: float
    lasting: bool
    relief: str
    sources: set[str] = field(default_factory=set)


class ProblemLog:
    """What is wrong now. For any number of threads.

    Args:
        say: is given each line.
        clock: seconds, monotonic.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._now: dict[str, _Trouble] = {}

    def found(self, what: str, text: str, relief: str, *, source: str = "", lasting: bool = False) -> None:
        """Something is wrong.

        Args:
            what: which trouble; it is said when it begins, and when it turns lasting or passing.
            text: of the line.
            relief: of the line that says that it is over; how long it took is added.
            source: who met it; the trouble is over when it is for everybody who did.
            lasting: whether it takes somebody to end it.
        """
        with self._lock:
            known = self._now.get(what)
            if known is None:
                known = self._now[what] = _Trouble(self._clock(), not lasting, relief)
            known.sources.add(source)
            new, known.lasting = known.lasting != lasting, lasting
        if new:
            self._say(text)

    def over(self, what: str, source: str = "") -> None:
        """It is well for this source."""
        with self._lock:
            known = self._now.get(what)
            if known is None:
                return
            known.sources.discard(source)
            if known.sources:
                return
            del self._now[what]
        self._say(f"{known.relief} after {duration(self._clock() - known.since)}")

    def __contains__(self, what: str) -> bool:
        with self._lock:
            return what in self._now


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
