"""Moments at which Ctrl-C waits: what is half set up, or half put back, would stay so."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any


def uninterrupted() -> AbstractContextManager[None]:
    """Hold SIGINT back for as long as it lasts; one that came meanwhile is handled at its end, once.

    It does nothing outside the main thread, which alone is interrupted, nor where no handler of Python's is set. It may
    be nested. What takes long inside belongs in `interruptible`:

    ```python
    with uninterrupted():
        change()
        try:
            with interruptible():
                work()
        finally:
            put_back()
    ```
    """
    return _Holding()


def interruptible() -> AbstractContextManager[None]:
    """Let SIGINT through again inside the innermost `uninterrupted`, at once where one was held back."""
    return _Letting()


class _Holding(AbstractContextManager[None]):
    """A class, and its own handler: a generator that an interrupt cuts off would go on when it is collected."""

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], Any] | None = None
        self._held = False

    def __enter__(self) -> None:
        self.hold()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.let_through()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._held = True

    def hold(self) -> None:
        """Take the place of whatever handler there is by now."""
        handler = _handler()
        if callable(handler):
            self._handler = handler
            signal.signal(signal.SIGINT, self)

    def let_through(self) -> None:
        """Put the handler back, and let it handle what was held; one that was set meanwhile stays."""
        if self._handler is None:
            return
        if _handler() is self:
            signal.signal(signal.SIGINT, self._handler)
        if self._held:
            self._held = False
            signal.raise_signal(signal.SIGINT)


class _Letting(AbstractContextManager[None]):
    def __init__(self) -> None:
        self._holding: _Holding | None = None

    def __enter__(self) -> None:
        handler = _handler()
        if isinstance(handler, _Holding):
            self._holding = handler
            handler.let_through()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._holding is not None:
            self._holding.hold()


def _handler() -> Any:
    """The handler of SIGINT; None outside the main thread."""
    return signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
