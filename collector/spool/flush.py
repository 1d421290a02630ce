"""Ship what processes that have ended left in the spool."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gatewatch.collector.errors import GatewatchError
from gatewatch.collector.file_locks import NoFileLocksError, check_locks
from gatewatch.collector.spool.inspect import Pending, pending
from gatewatch.collector.spool.isolation import ROUND_WAIT
from gatewatch.collector.spool.queue import Spool, list_paths
from gatewatch.collector.spool.segment import SUFFIX, read_segment
from gatewatch.collector.spool.shipper import Shipper
from gatewatch.collector.spool.writer_dir import LEASE_SECONDS, LOCK, may_live_elsewhere
from gatewatch.collector.store import reopen_store

_LOOK_SECONDS: Final = 0.5
_UNBOUNDED: Final = 2**62
_LATER: Final = f"they can be shipped {LEASE_SECONDS / 60:.0f} minutes after its last sign of life, or on that machine"


@dataclass(frozen=True, slots=True)
class FlushResult:
    """The outcome for one store.

    Attributes:
        url: of the store.
        shipped: points that are in the store now.
        rejected: points that it refused.
        left: points that could not be shipped; those of a running process, which ships them itself, are not counted.
        problem: why they could not be shipped; None where they could.
    """

    url: str
    shipped: int
    rejected: int
    left: int
    problem: str | None = None


def flush(root: Path, seconds: float, progress: Callable[[str, int], None] | None = None) -> Iterator[FlushResult]:
    """Ship what processes that have ended left behind, store by store.

    Args:
        root: the folder of the spools.
        seconds: how long to wait for a store that takes nothing, for each store.
        progress: called about twice a second with the URL of the store and the points that still wait.
    """
    for entry in list(pending(root)):
        if entry.points:
            yield _flush_one(root, entry, seconds, progress)


def _flush_one(root: Path, entry: Pending, seconds: float, progress: Callable[[str, int], None] | None) -> FlushResult:
    url = entry.destination.get("url", "")
    try:
        store = reopen_store(entry.destination)
        store.check()
    except GatewatchError as error:
        return FlushResult(url, 0, 0, entry.points, str(error))
    try:
        check_locks(entry.folder)
    except NoFileLocksError as error:
        return FlushResult(url, 0, 0, entry.points, f"{entry.folder} cannot be shipped from: {error.strerror}")
    except OSError:  # a full disk, from which shipping takes
        pass
    spool = Spool(root, entry.destination, _UNBOUNDED)
    spool.adopt()
    shipper = Shipper(store, spool)
    done = shipper.delivery
    state, moved = (spool.waiting, done.rounds), time.monotonic()
    # Lines that the store never takes are looked for in rounds, which lie apart.
    while not shipper.flush(_LOOK_SECONDS) and time.monotonic() - moved <= seconds + ROUND_WAIT * bool(done.rounds):
        before, state = state, (spool.waiting, done.rounds)
        if progress is not None:
            progress(url, spool.waiting)
        if state != before:
            moved = time.monotonic()
    left, problem = spool.waiting, done.problem
    shipper.close(0)
    store.close()
    if not left and (left := _points_elsewhere(entry.folder)):
        problem = (
            f"{left:,} points in {entry.folder} are of another machine, where their process may be alive: {_LATER}"
        )
    return FlushResult(url, done.shipped, done.rejected, left, problem if left else None)


def _points_elsewhere(folder: Path) -> int:
    """Return how many points wait that processes of other machines may still be writing."""
    points = 0
    for lock in list_paths(folder, f"[0-9]*/{LOCK}"):
        with suppress(OSError):
            if may_live_elsewhere(lock.parent):
                points += sum(read_segment(path)[0].points for path in lock.parent.glob(f"*{SUFFIX}"))
    return points
