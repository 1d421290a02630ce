"""Defer Ctrl-C (SIGINT) while something is half set up or half restored."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Any


def signal_handler(number: int) -> Any:
    """Return the handler of a signal; None outside the main thread, where none can be set."""
    return signal.getsignal(number) if threading.current_thread() is threading.main_thread() else None


# Two classes, named like those of contextlib: a generator that an interrupt cuts off would go on when it is collected.


class defer_sigint(AbstractContextManager[None]):  # noqa: N801
    """Defer SIGINT to the end of the block; one or more that arrived inside are handled there, once.

    It does nothing outside the main thread, which alone is interrupted, nor where SIGINT has no Python handler. It may
    be nested. What takes long inside belongs in `allow_sigint`:

    ```python
    with defer_sigint():
        change()
        try:
            with allow_sigint():
                work()
        finally:
            restore()
    ```
    """

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], Any] | None = None
        self._pending = False
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        self.defer()

    def __exit__(self, *_: object) -> None:
        self.restore()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note that SIGINT has arrived: the object is the handler."""
        self._pending = True

    def defer(self) -> None:
        """Replace the present handler by this object."""
        handler = signal_handler(signal.SIGINT)
        if callable(handler):
            self._handler = handler
            signal.signal(signal.SIGINT, self)

    def restore(self) -> None:
        """Restore the handler, unless another was set meanwhile, and raise the pending signal again."""
        if self._handler is None:
            return
        if signal_handler(signal.SIGINT) is self:
            signal.signal(signal.SIGINT, self._handler)
        if self._pending:
            self._pending = False
            signal.raise_signal(signal.SIGINT)


class allow_sigint(AbstractContextManager[None]):  # noqa: N801
    """Handle SIGINT again inside the innermost `defer_sigint`, at once where one is pending."""

    def __init__(self) -> None:
        self._deferring: defer_sigint | None = None

    def __enter__(self) -> None:
        handler = signal_handler(signal.SIGINT)
        if isinstance(handler, defer_sigint):
            self._deferring = handler
            handler.restore()

    def __exit__(self, *_: object) -> None:
        if self._deferring is not None:
            self._deferring.defer()


def _after_fork_in_child() -> None:
    """Restore the handler where another thread forked: the block that would do it does not go on in the child."""
    thread = threading.get_ident()
    while isinstance(handler := signal_handler(signal.SIGINT), defer_sigint) and handler._thread != thread:
        handler._pending = False  # that one was the parent's
        handler.restore()


os.register_at_fork(after_in_child=_after_fork_in_child)
