"""End runs that the program does not end itself: at exit, on SIGTERM, or where a notebook cell fails.

All runs of a process write how they end first, and then share the time that there is to ship.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from gatewatch.collector.runtime.signals import signal_handler

if TYPE_CHECKING:
    from gatewatch.collector.run_life import RunLife

END_SECONDS: Final = 10.0
"""How long the end of a process waits for the stores of all its runs."""

_open: Final[dict[RunLife, bool]] = {}
"""The runs that have not ended, and whether the notebook cell that began each of them is still running."""
_exit: Final = {"ends_runs": False, "terminated": False}
"""Whether the end of the process ends the runs now, and whether SIGTERM has arrived meanwhile."""
_forking: Final = threading.local()
"""The signal mask from before a fork, for the thread that forks."""


def register(run: RunLife) -> None:
    """End the run when the process ends, on SIGTERM, or when the notebook cell that began it fails."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    if not _open and signal_handler(signal.SIGTERM) is signal.SIG_DFL:  # the user's own handler is left alone
        signal.signal(signal.SIGTERM, _at_sigterm)
    _open[run] = threading.current_thread() is threading.main_thread() and _hook_notebook_cells()


def unregister(run: RunLife) -> None:
    """Leave a run alone from now on, since it has ended; with the last run the SIGTERM handler goes."""
    _open.pop(run, None)
    if not _open and signal_handler(signal.SIGTERM) is _at_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def final_status(error: BaseException | None) -> str:
    """Return the status of a run that ended with an exception.

    Returns:
        `completed` for None, `failed` for an `Exception`, `interrupted` for others, such as KeyboardInterrupt.
    """
    if error is None:
        return "completed"
    return "failed" if isinstance(error, Exception) else "interrupted"


def _end_all(status: str, error: BaseException | None) -> None:
    deadline = time.monotonic() + END_SECONDS
    runs = list(_open)
    for run in runs:
        run.record_end(status, error)
    for run in runs:
        run.close(status, error, max(0.0, deadline - time.monotonic()))
    while _open and time.monotonic() < deadline:  # another thread closes one of them, and ships yet
        time.sleep(0.05)


def _at_exit() -> None:
    error = getattr(sys, "last_value", None)
    _exit["ends_runs"] = True
    try:
        _end_all("interrupted" if error is None else final_status(error), error)
    finally:
        _exit["ends_runs"] = False
        if _exit["terminated"]:
            os.kill(os.getpid(), signal.SIGTERM)


def _at_sigterm(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
    if _exit["ends_runs"]:  # it ships for some seconds, and then ends by the signal
        _exit["terminated"] = True
        return

    def end() -> None:
        _end_all("interrupted", None)
        os.kill(os.getpid(), signal.SIGTERM)

    # In a thread: the main thread may hold any lock here, and releases it only after this handler returns.
    try:
        threading.Thread(target=end, name="gatewatch-end").start()
    except RuntimeError:  # Python 3.12 starts none once the main thread has ended, which now waits for others
        end()


def _hook_notebook_cells() -> bool:
    """Ask IPython to call `_after_cell` after each cell. Return whether this process runs in IPython."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None:
        return False
    if _after_cell not in shell.events.callbacks.get("post_run_cell", ()):
        shell.events.register("post_run_cell", _after_cell)
    return True


def _after_cell(result: Any) -> None:
    runs, error = [run for run, in_this_cell in list(_open.items()) if in_this_cell], result.error_in_exec
    for run in runs:
        _open[run] = False
        if error is not None:
            run.close(final_status(error), error)


def _before_fork() -> None:
    """Block SIGTERM: one that reached the child before its handler is reset would be lost, and the child live on."""
    if signal.getsignal(signal.SIGTERM) is _at_sigterm:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _after_fork() -> None:
    """Restore the thread's signal mask; a SIGTERM that arrived meanwhile is delivered now."""
    if (mask := _forking.__dict__.pop("mask", None)) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    for run in list(_open):
        if run.started:
            _open[run] = False
        else:  # a thread that the child does not have was closing it
            del _open[run]
    if signal.getsignal(signal.SIGTERM) is _at_sigterm:  # the child's end is not the end of the run
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
