"""What several commands do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib import util
from typing import TYPE_CHECKING

from gatewatch.collector.errors import ConfigError

if TYPE_CHECKING:
    from gatewatch.collector.store import Store

Commands = argparse._SubParsersAction  # what `add_subparsers` gives has no public name
NO_RUNS = "{} holds no run yet: train one with GateMonitor, or try `gatewatch demo`"


def existing_store(arguments: argparse.Namespace) -> Store:
    """The store, which must be there already: no reader makes an empty one by a misspelt name."""
    from gatewatch.collector.store import open_store  # noqa: PLC0415 - numpy comes with it, and `--help` needs none

    store = open_store(arguments.store)
    if not store.exists():
        raise ConfigError(f"{store.url} does not exist; name the store with --store or GATEWATCH_STORE")
    return store


def need(extra: str, *packages: str) -> None:
    """See that packages are installed.

    Raises:
        ConfigError: some are not; names the extra that brings them.
    """
    missing = [package for package in packages if util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"this command needs {', '.join(missing)}: pip install 'gatewatch[{extra}]'")


def print_json(entries: Sequence[object]) -> None:
    """A list as JSON."""
    print(json.dumps(entries, indent=2))


def positive(text: str) -> int:
    """An argument that is a positive whole number."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return number
