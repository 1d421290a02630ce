"""`gatewatch baseline add`, `remove` and `list`."""

from __future__ import annotations

import argparse

from gatewatch.jobs import baselines
from gatewatch.jobs.commands.common import existing_store, print_list


def add(arguments: argparse.Namespace) -> None:
    """Make a run a baseline."""
    baselines.add(existing_store(arguments), arguments.run)


def remove(arguments: argparse.Namespace) -> None:
    """Make a run no longer a baseline."""
    baselines.remove(existing_store(arguments), arguments.run)


def show(arguments: argparse.Namespace) -> None:
    """Print the baselines."""
    store = existing_store(arguments)
    runs = baselines.listed(store)
    nothing = f"{store.url} has no baseline: name a healthy run with `gatewatch baseline add RUN`"
    print_list(arguments, runs, ["run"], [[run] for run in runs], nothing)
