"""Open the store of a run, and the queue that leads to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from gatewatch.collector.config import load_settings
from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.log import log
from gatewatch.collector.run_name import FirstEvent, RunName
from gatewatch.collector.schema import HEARTBEAT_SECONDS, Point
from gatewatch.collector.spool.queue import Spool, spool_root
from gatewatch.collector.spool.shipper import Shipper
from gatewatch.collector.store import Store, open_store
from gatewatch.collector.text import safe_repr

_MEMBERS: Final = ("url", "check", "write", "read")
"""The members of `Store` that a user's own store must have, to be written to."""


def chosen_store(store: Store | str | None) -> Store:
    """Return the store that a monitor was given; nothing is opened yet.

    Args:
        store: a store or its URL; as `open_store` chooses where None.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(store, str | os.PathLike | None):
        return open_store(store)
    if not all(hasattr(store, name) for name in _MEMBERS):
        raise ConfigError(f"store={safe_repr(store)}: must be a URL, such as sqlite:///gatewatch.db, or an open store")
    return store


def open_shipper(
    store: Store, name: RunName, first: FirstEvent, *, beat: Callable[[], None], last: Callable[[], None], again: bool
) -> tuple[Shipper, Point | None]:
    """Check the store and the spool, reserve the run's name, and begin the thread that ships the points of the run.

    Args:
        store: where the points go. While it does not answer they wait.
        name: of the run.
        first: makes the first event.
        beat: called by the thread at each heartbeat.
        last: called by the thread before it ends, where everything is in the store.
        again: whether this process has begun the run before, or has made up its name: nothing needs to be asked.

    Returns:
        The thread, and the first event where it is not in the store already.

    Raises:
        ConfigError: the store can never take the points as things are, the spool cannot be written, the name was used
            before, or another process records the run.
    """
    wait, away = 0.0, False
    try:
        store.check()
    except WriteUnavailable as error:
        wait, away = _not_yet(store, error), True
    settings = load_settings().spool
    destination = getattr(store, "destination", {"url": store.url})  # a user's own store may have none
    spool = Spool(spool_root(settings.path), destination, settings.max_mb * 2**20)
    spool.check()
    event: Point | None
    try:
        name.lock(spool.folder)
        written = False
        if again:
            event = first("started")
        elif away:
            event = name.claim_unasked(first)
        else:
            try:
                event, written = name.claim(first)
            except WriteUnavailable as error:
                wait, event = _not_yet(store, error), name.claim_unasked(first)
    except BaseException:
        name.release()
        spool.close()
        raise
    shipper = Shipper(store, spool, tick=beat, tick_seconds=HEARTBEAT_SECONDS, last=last, first_wait=wait)
    return shipper, None if written else event


def _not_yet(store: Store, error: WriteUnavailable) -> float:
    text = "gatewatch: %s does not answer yet; training goes on and the points wait: %s"
    log.warning(text, store.url, error)
    return error.retry_after or 0.0
