"""Ship what processes that have ended left in the spool."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gatewatch.collector.errors import GatewatchError
from gatewatch.collector.spool.inspect import Pending, pending
from gatewatch.collector.spool.isolation import ROUND_WAIT
from gatewatch.collector.spool.queue import Spool
from gatewatch.collector.spool.shipper import Shipper
from gatewatch.collector.store import reopen_store

_LOOK_SECONDS: Final = 0.5
_UNBOUNDED: Final = 2**62


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
    left = spool.waiting
    shipper.close(0)
    store.close()
    return FlushResult(url, done.shipped, done.rejected, left, done.problem if left else None)
