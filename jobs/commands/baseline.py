"""`gatewatch baseline add`, `remove` and `list`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.store import Store
from gatewatch.collector.text import safe_repr
from gatewatch.jobs import baselines
from gatewatch.jobs.commands.common import existing_store, print_list
from gatewatch.jobs.findings.series import config_of
from gatewatch.jobs.findings.verdict import read_verdict
from gatewatch.jobs.text import first_few

_COLUMNS = ("run", "phases", "network")


def add(arguments: argparse.Namespace) -> None:
    """Make a run a baseline; one that alarms only with `--anyway`."""
    store = existing_store(arguments)
    run = baselines.find(store, arguments.run)
    if not arguments.anyway and _has_events(store, run):
        found = read_verdict(store, run)
        if found.verdict == "alarm":
            raise ConfigError(
                f"run {safe_repr(run)} is not healthy: {found.sentence} A baseline says what is normal for other runs; "
                "where this is, give --anyway"
            )
    baselines.add(store, run)


def remove(arguments: argparse.Namespace) -> None:
    """Make a run no longer a baseline."""
    baselines.remove(existing_store(arguments), arguments.run)


def show(arguments: argparse.Namespace) -> None:
    """Print the baselines, with the phases and the network for which each of them counts."""
    store = existing_store(arguments)
    rows = {str(row["run"]): row for row in store.runs().to_dict("records")}
    entries = [_entry(run, rows.get(run, {})) for run in baselines.listed(store)]
    nothing = f"{store.url} has no baseline: name a healthy run with `gatewatch baseline add RUN`"
    print_list(arguments, entries, _COLUMNS, [[entry[name] for name in _COLUMNS] for entry in entries], nothing)


def _has_events(store: Store, run: str) -> bool:
    """Return whether the run is listed: a retention policy may have taken its events before its captures."""
    return run in set(store.runs()["run"])


def _entry(run: str, row: Mapping[Any, Any]) -> dict[str, str]:
    """Return name, phases and layers of a run; empty where the store no longer has them."""
    layers = config_of(row.get("config")).get("layers")
    network = []
    for name, about in layers.items() if isinstance(layers, Mapping) else ():
        kind = about if isinstance(about, Mapping) else {}
        size = kind.get("units") or kind.get("hidden_size")
        network.append(" ".join(str(part) for part in (name, kind.get("type"), size) if part))
    phases = row.get("phases")
    return {
        "run": run,
        "phases": str(phases).replace(",", ", ") if isinstance(phases, str) else "",
        "network": first_few(network),
    }
