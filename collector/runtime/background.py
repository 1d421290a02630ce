"""A call in a thread of its own, which is waited for a bounded time only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class BackgroundCall(Generic[T]):
    """Calls functions in a thread, one at a time; the end of the process does not wait for it."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._future: Future[T] = Future()

    def result(self, work: Callable[[], T], seconds: float) -> T:
        """Return what the function returns.

        Where an earlier call is still at work, its result is waited for and returned, and `work` is not called.

        Args:
            work: the function.
            seconds: how long to wait.

        Raises:
            TimeoutError: it has not returned by then; it goes on in its thread.
            Exception: what the function raises.
        """
        if self._thread is None or self._future.done() or not self._thread.is_alive():  # no thread outlives a fork
            self._future = Future()
            self._thread = threading.Thread(target=_run, args=(work, self._future), name="gatewatch-call", daemon=True)
            self._thread.start()
        return self._future.result(max(0.0, seconds))


def _run(work: Callable[[], T], future: Future[T]) -> None:
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
