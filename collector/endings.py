"""How runs end that nobody ended: the process ends, a signal asks for it, or a notebook's cell fails.

A run is told to end by `close(status, error)`; what it needs of time it takes itself.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, Final, Protocol


class Run(Protocol):
    """What can be ended."""

    def close(self, status: str, error: BaseException | None = None) -> None:
        """End it; again, and in a forked child, without effect."""

    def forked(self) -> None:
        """Told in a forked child."""


_open: Final[list[Run]] = []
_in_this_cell: Final[list[Run]] = []


def watch(run: Run) -> None:
    """End the run when the process does, at SIGTERM, or when the notebook's cell that began it fails."""
    if not _open:
        atexit.register(_at_exit)
        _on_sigterm()
    _open.append(run)
    if threading.current_thread() is threading.main_thread() and _watch_cells():
        _in_this_cell.append(run)


def unwatch(run: Run) -> None:
    """The run has ended."""
    for runs in (_open, _in_this_cell):
        if run in runs:
            runs.remove(run)
    if not _open:
        atexit.unregister(_at_exit)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _at_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def outcome(error: BaseException | None) -> str:
    """The status of a run that an exception has ended: failed, or interrupted where it was no error."""
    if error is None:
        return "completed"
    return "failed" if isinstance(error, Exception) else "interrupted"


def _end(status: str, error: BaseException | None) -> None:
    for run in list(_open):
        run.close(status, error)


def _at_exit() -> None:
    error = getattr(sys, "last_value", None)
    _end("interrupted" if error is None else outcome(error), error)


def _on_sigterm() -> None:
    """Only where nobody else has something to do at SIGTERM; who has, ends the process in his own way."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _at_sigterm)


def _at_sigterm(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once

    def end() -> None:
        _end("interrupted", None)
        os.kill(os.getpid(), signal.SIGTERM)

    # In a thread: this may be in the middle of anything, and what it holds it gives back only when we return.
    threading.Thread(target=end, name="gatewatch-end").start()


def _watch_cells() -> bool:
    """Whether this runs in IPython, which then tells of the end of each cell."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return False
    if _after_cell not in shell.events.callbacks.get("post_run_cell", ()):
        shell.events.register("post_run_cell", _after_cell)
    return True


def _after_cell(result: Any) -> None:
    runs, error = list(_in_this_cell), result.error_in_exec
    _in_this_cell.clear()
    if error is not None:
        for run in runs:
            run.close(outcome(error), error)


def _after_fork() -> None:
    _in_this_cell.clear()
    for run in _open:
        run.forked()
    if _open and signal.getsignal(signal.SIGTERM) is _at_sigterm:  # the child's end is not the run's
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
