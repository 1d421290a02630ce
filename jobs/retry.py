"""Retries of requests to a store that does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from gatewatch.collector.errors import WriteUnavailable

T = TypeVar("T")

FIRST_S: Final = 0.5
LONGEST_S: Final = 10.0


class Retry:
    """Calls a function again while the store is unavailable, with growing pauses; for any number of threads.

    Args:
        seconds: after which a call is given up.
        on_wait: is called with the problem before each pause.
        clock: monotonic, in seconds.
        longest: pause in seconds, where the store asks for none.
    """

    def __init__(
        self,
        seconds: float,
        on_wait: Callable[[str], None] = lambda problem: None,
        clock: Callable[[], float] = time.monotonic,
        longest: float = LONGEST_S,
    ) -> None:
        self.seconds = seconds
        self._on_wait = on_wait
        self._clock = clock
        self._longest = longest
        self._ended = threading.Event()

    def __call__(self, function: Callable[[], T]) -> T:
        """Return what the function returns.

        Raises:
            WriteUnavailable: the store was unavailable for too long, or a retry will not help.
        """
        end = self._clock() + self.seconds
        pause = FIRST_S
        while True:
            try:
                return function()
            except WriteUnavailable as error:
                asked = error.retry_after if error.retry_after is not None else pause
                if error.slow or self._ended.is_set() or self._clock() + asked > end:
                    raise
                self._on_wait(str(error))
                self._ended.wait(asked)
                pause = min(2 * pause, self._longest)

    def end(self) -> None:
        """Retry no more, in no thread."""
        self._ended.set()
