"""A store that is away is waited for, for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from gatewatch.collector.errors import WriteUnavailable

T = TypeVar("T")

FIRST_S: Final = 0.5
LONGEST_S: Final = 10.0


class Patience:
    """Asks a store again until it answers, for any number of threads.

    Args:
        seconds: for which one question is asked again.
        tell: told, as text, what is waited for, whenever it is.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        seconds: float,
        tell: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._tell = tell
        self._clock = clock
        self._ended = threading.Event()

    def __call__(self, ask: Callable[[], T]) -> T:
        """The answer.

        Raises:
            WriteUnavailable: the store gave none in time, or says that waiting will not help.
        """
        end = self._clock() + self._seconds
        wait = FIRST_S
        while True:
            try:
                return ask()
            except WriteUnavailable as error:
                asked = error.retry_after if error.retry_after is not None else wait
                if error.slow or self._ended.is_set() or self._clock() + asked > end:
                    raise
                self._tell(str(error))
                self._ended.wait(asked)
                wait = min(2 * wait, LONGEST_S)

    def end(self) -> None:
        """Wait no longer, in no thread."""
        self._ended.set()
