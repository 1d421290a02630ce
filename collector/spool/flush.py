"""What `gatewatch spool` does: shows what waits for the stores, and ships it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gatewatch.collector.errors import GatewatchError
from gatewatch.collector.spool.inspect import Waiting, waiting
from gatewatch.collector.spool.queue import Spool
from gatewatch.collector.spool.shipper import Shipper
from gatewatch.collector.store import reopen_store

_LOOK_SECONDS: Final = 0.5
_UNBOUNDED: Final = 2**62


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of what waited for one store.

    Attributes:
        url: of the store.
        shipped: points that are in the store now.
        rejected: points that it refused.
        left: points that could not be shipped; what a running process holds is its own to ship, and not counted.
        problem: why they could not be shipped; None where they could.
    """

    url: str
    shipped: int
    rejected: int
    left: int
    problem: str | None = None


def shown(entry: Waiting) -> dict[str, object]:
    """What waits for one store, as JSON can hold it."""
    return {
        **entry.destination,
        "points": entry.points,
        "bytes": entry.bytes,
        "damaged": entry.damaged,
        "rejected": entry.rejected,
        "reason": entry.reason,
        "rejected_file": str(entry.rejected_file) if entry.rejected else None,
        "folder": str(entry.folder),
    }


def flush(root: Path, seconds: float, progress: Callable[[str, int], None] | None = None) -> Iterator[Flushed]:
    """Ship what dead processes have left, store by store.

    Args:
        root: of the spools.
        seconds: for which a store that does not answer is waited for, each.
        progress: told the store and how many points still wait, about twice a second.
    """
    for entry in list(waiting(root)):
        if entry.points:
            yield _flush_one(root, entry, seconds, progress)


def _flush_one(root: Path, entry: Waiting, seconds: float, progress: Callable[[str, int], None] | None) -> Flushed:
    url = entry.destination.get("url", "")
    try:
        store = reopen_store(entry.destination)
        store.check()
    except GatewatchError as error:
        return Flushed(url, 0, 0, entry.points, str(error))
    spool = Spool(root, entry.destination, _UNBOUNDED)
    spool.adopt()
    shipper = Shipper(store, spool)
    last, moved = shipper.waiting, time.monotonic()
    while not shipper.flush(_LOOK_SECONDS):
        now = shipper.waiting
        if progress is not None:
            progress(url, now)
        if now < last:
            last, moved = now, time.monotonic()
        elif time.monotonic() - moved > seconds:
            break
    left = shipper.waiting
    shipper.close(0)
    store.close()
    return Flushed(url, shipper.shipped, shipper.rejected, left, shipper.problem if left else None)
