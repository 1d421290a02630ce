"""Ask for the verdict on a run from within its training: for a bounded time, and whatever goes wrong."""

from __future__ import annotations

import math
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import reason_of
from gatewatch.collector.runtime.background import BackgroundCall
from gatewatch.collector.store import reopen_store
from gatewatch.collector.text import safe_repr
from gatewatch.collector.verdict import Verdict, undecided

if TYPE_CHECKING:
    from gatewatch.collector.store import Store

SECONDS: Final = 5.0
"""How long a training waits for a verdict, where it says nothing else."""
_MEMBERS: Final = ("find", "runs")
"""What a user's own store must have, to be read."""


class VerdictReader:
    """Reads the verdict on the run of a monitor, in a thread of its own. One reads at a time."""

    def __init__(self) -> None:
        self._call = BackgroundCall[Verdict]()

    def read(self, store: Store, run: str, seconds: float, start: int | None = None) -> Verdict:
        """Return the verdict, or `undecided` and why; nothing is raised.

        Where the thread of an earlier call is still at work, its answer is waited for.

        Args:
            store: of the run.
            run: its name.
            seconds: how long to wait.
            start: judge only what was captured at this time or later, in nanoseconds; None: the whole run.
        """
        try:
            if not isinstance(seconds, int | float) or not math.isfinite(seconds):
                return undecided(run, f"timeout={safe_repr(seconds)} is no number of seconds")
            return self._call.result(lambda: _read(store, run, start), min(seconds, 1e6))
        except TimeoutError:
            return undecided(run, f"its points were not read within {seconds:g} s; ask again, or give more timeout=")
        except Exception as error:
            return undecided(run, reason_of(error))


def _read(store: Store, run: str, start: int | None) -> Verdict:
    lacking = [name for name in _MEMBERS if not hasattr(store, name)]
    if lacking:
        return undecided(run, f"the store of the run cannot be read: it has no {', '.join(lacking)}")
    if getattr(store, "path", None) is None:
        return _judge(store, run, start)
    with closing(reopen_store(store.destination)) as own:  # a connection of its own, which no write waits for
        return _judge(own, run, start)


def _judge(store: Store, run: str, start: int | None) -> Verdict:
    """Call `gatewatch.verdict`: the package above puts the collector and the jobs together, which it may lack."""
    try:
        judge = import_module("gatewatch").verdict
    except ImportError as error:
        return undecided(run, f"{reason_of(error)}: pip install 'gatewatch[jobs]'")
    verdict: Verdict = judge(store, run, timeout=None, start=start)
    return verdict
