"""Open the store of a run, and the queue that leads to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from gatewatch.collector.config import load_settings
from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.schema import HEARTBEAT_SECONDS, RUNS
from gatewatch.collector.spool.queue import Spool, spool_root
from gatewatch.collector.spool.shipper import Shipper
from gatewatch.collector.store import Store, open_store
from gatewatch.collector.text import safe_repr

_MEMBERS: Final = ("url", "check", "write", "read")
"""The members of `Store` that a user's own store must have, to be written to."""

log = logging.getLogger("gatewatch")


def chosen_store(store: Store | str | None) -> Store:
    """Return the store that a monitor was given; nothing is opened yet.

    Args:
        store: a store or its URL; as `open_store` chooses where None.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(store, str | None):
        return open_store(store)
    if not all(hasattr(store, name) for name in _MEMBERS):
        raise ConfigError(f"store={safe_repr(store)}: must be a URL, such as sqlite:///gatewatch.db, or an open store")
    return store


def open_shipper(store: Store, tags: Mapping[str, str], beat: Callable[[], None], *, unused: bool) -> Shipper:
    """Check the store and the spool, and begin the thread that ships the points of a run.

    Args:
        store: where the points go. While it does not answer they wait.
        tags: `run` and `phase` of the run.
        beat: called by the thread at each heartbeat.
        unused: whether the store may hold no run of this name and phase.

    Raises:
        ConfigError: the store can never take the points as things are, the spool cannot be written, or the name was
            used before.
    """
    wait = 0.0
    try:
        store.check()
        if unused:
            _check_unused(store, tags["run"], tags["phase"])
    except WriteUnavailable as error:
        wait = error.retry_after or 0.0
        log.warning("gatewatch: %s does not answer yet; training goes on and the points wait: %s", store.url, error)
    settings = load_settings().spool
    destination = getattr(store, "destination", {"url": store.url})  # a user's own store may have none
    spool = Spool(spool_root(settings.path), destination, settings.max_mb * 2**20)
    spool.check()
    return Shipper(store, spool, tick=beat, tick_seconds=HEARTBEAT_SECONDS, first_wait=wait)


def _check_unused(store: Store, run: str, phase: str) -> None:
    try:
        used = store.read(RUNS, run=run, tags={"phase": phase}, prefix_tags=True)
    except ConfigError:  # a token that may only write cannot be asked
        return
    if len(used) and not (set(used["event"]) & {"failed", "interrupted"} and used["step"].max() == 0):
        problem = f"run={run!r}: {store.url} already holds a run of this name and phase"
        raise ConfigError(f"{problem}; choose another, or leave run=None for a new one each time")
