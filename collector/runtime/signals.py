"""Defer Ctrl-C (SIGINT) while something is half set up or half restored."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any


def defer_sigint() -> AbstractContextManager[None]:
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
    return _DeferSigint()


def allow_sigint() -> AbstractContextManager[None]:
    """Handle SIGINT again inside the innermost `defer_sigint`, at once where one is pending."""
    return _AllowSigint()


class _DeferSigint(AbstractContextManager[None]):
    """A class, and its own handler: a generator that an interrupt cuts off would go on when it is collected."""

    def __init__(self) -> None:
        self._handler: Callable[[int, FrameType | None], Any] | None = None
        self._pending = False
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        self.defer()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._pending = True

    def defer(self) -> None:
        """Replace the present handler by this object."""
        handler = _sigint_handler()
        if callable(handler):
            self._handler = handler
            signal.signal(signal.SIGINT, self)

    def restore(self) -> None:
        """Restore the handler, unless another was set meanwhile, and raise the pending signal again."""
        if self._handler is None:
            return
        if _sigint_handler() is self:
            signal.signal(signal.SIGINT, self._handler)
        if self._pending:
            self._pending = False
            signal.raise_signal(signal.SIGINT)

    def after_fork_in_child(self) -> None:
        """Restore the handler where another thread forked: the block that would do it does not go on in the child."""
        if self._thread != threading.get_ident():
            self._pending = False  # that one was the parent's
            self.restore()


class _AllowSigint(AbstractContextManager[None]):
    def __init__(self) -> None:
        self._deferring: _DeferSigint | None = None

    def __enter__(self) -> None:
        handler = _sigint_handler()
        if isinstance(handler, _DeferSigint):
            self._deferring = handler
            handler.restore()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._deferring is not None:
            self._deferring.defer()


def _sigint_handler() -> Any:
    """Return the handler of SIGINT; None outside the main thread."""
    return signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None


def _after_fork_in_child() -> None:
    handler = None
    while isinstance(latest := _sigint_handler(), _DeferSigint) and latest is not handler:
        handler = latest
        handler.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
