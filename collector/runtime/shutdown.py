"""How runs end that nobody ended: the process ends, a signal asks for it, or a notebook's cell fails.

All runs of a process are told to end first, and share what time there is to ship.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, Final, Protocol


class Run(Protocol):
    """What can be ended."""

    def tell_end(self, status: str, error: BaseException | None = None) -> None:
        """Write how it ends; again without effect."""

    def close(self, status: str, error: BaseException | None = None, seconds: float | None = None) -> None:
        """End it, and ship what is left for so long; again, and in a forked child, without effect."""

    def forked(self) -> None:
        """Told in a forked child."""


END_SECONDS: Final = 10.0
"""How long the end of a process waits for the stores of all its runs."""

_open: Final[list[Run]] = []
_registered: Final[list[object]] = []
_in_this_cell: Final[list[Run]] = []


def watch(run: Run) -> None:
    """End the run when the process does, at SIGTERM, or when the notebook's cell that began it fails."""
    if not _registered:
        _registered.append(atexit.register(_at_exit))
    if not _open:
        _on_sigterm()
    _open.append(run)
    if threading.current_thread() is threading.main_thread() and _watch_cells():
        _in_this_cell.append(run)


def unwatch(run: Run) -> None:
    """The run has ended."""
    for runs in (_open, _in_this_cell):
        if run in runs:
            runs.remove(run)
    in_main = threading.current_thread() is threading.main_thread()  # elsewhere the handler must stay
    if not _open and in_main and signal.getsignal(signal.SIGTERM) is _at_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def outcome(error: BaseException | None) -> str:
    """The status of a run that an exception has ended: failed, or interrupted where it was no error."""
    if error is None:
        return "completed"
    return "failed" if isinstance(error, Exception) else "interrupted"


def _end(status: str, error: BaseException | None) -> None:
    deadline = time.monotonic() + END_SECONDS
    runs = list(_open)
    for run in runs:
        run.tell_end(status, error)
    for run in runs:
        run.close(status, error, max(0.0, deadline - time.monotonic()))


def _at_exit() -> None:
    error = getattr(sys, "last_value", None)
    _end("interrupted" if error is None else outcome(error), error)


def _on_sigterm() -> None:
    """Only where nobody else has something to do at SIGTERM; who has, ends the process in his own way."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _at_sigterm)


def _at_sigterm(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
    if not _open:
        os.kill(os.getpid(), signal.SIGTERM)

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
