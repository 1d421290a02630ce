"""What several commands do: open the store, find the spool, print a list as JSON or as a table."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gatewatch.collector.config import load_settings
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.spool.inspect import pending
from gatewatch.collector.spool.queue import spool_root
from gatewatch.collector.store import Store, open_store
from gatewatch.collector.user_folders import store_folders
from gatewatch.jobs.console import fail, write_data
from gatewatch.jobs.text import table

NO_RUNS = "{} holds no run yet: train one with GateMonitor, or try `gatewatch demo`"


def existing_store(arguments: Namespace) -> Store:
    """Open the store, which must be there already: no reader makes an empty one by a misspelt name."""
    store = open_store(arguments.store)
    require_existing(store)
    return store


def require_existing(store: Store) -> None:
    """Check that a store is there.

    Raises:
        ConfigError: it is a file that does not exist.
    """
    if not store.exists():
        raise ConfigError(f"{store.url} does not exist; name the store with --store or GATEWATCH_STORE")


def spool_folder() -> Path:
    """Return the folder of the spools, from the configuration."""
    return spool_root(load_settings().spool.path)


def points_waiting(store: Store) -> int:
    """Return how many points wait in this machine's spool for a store."""
    root = spool_folder()
    folders = store_folders(root, store.destination)
    return sum(entry.points for entry in pending(root) if entry.folder in folders)


def say_waiting(points: int, store: Store, then: str) -> None:
    """Say in one line of standard error that points wait for a store, and what to do; nothing where none do."""
    if points:
        wait = "point waits" if points == 1 else "points wait"
        fail(f"{points:,} {wait} in the spool for {store.url}: `gatewatch spool flush`, then {then}")


def print_list(
    arguments: Namespace, entries: Sequence[Any], header: Sequence[str], rows: Sequence[Any], nothing: str = ""
) -> bool:
    """Print a list as JSON where --json is given, else as a table, and return whether it was a table.

    Args:
        arguments: of the command.
        entries: the list for JSON; dataclasses become objects.
        header, rows: of the table; a row has a cell for each column.
        nothing: is printed in place of a table without rows.
    """
    if arguments.json:
        # Not `asdict`, which makes another Counter of a Counter.
        text = json.dumps(entries, indent=2, default=lambda one: {f.name: getattr(one, f.name) for f in fields(one)})
        write_data([text, "\n"])
    else:
        print(table(header, rows) if rows else nothing)
    return bool(rows) and not arguments.json
