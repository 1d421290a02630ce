"""`gatewatch baseline add`, `remove` and `list`."""

from __future__ import annotations

import argparse

from gatewatch.jobs.commands.common import Commands, existing_store, need, print_json
from gatewatch.jobs.text import table


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command."""
    baseline = commands.add_parser("baseline", help="choose healthy runs as baselines of the scores")
    actions = baseline.add_subparsers(title="actions", required=True, metavar="ACTION")
    for name, run_command, text in (
        ("add", _add, "make a healthy run a baseline"),
        ("remove", _remove, "make a run no longer a baseline"),
    ):
        action = actions.add_parser(name, parents=[with_store], help=text)
        action.add_argument("run", metavar="RUN", help="name of the run")
        action.set_defaults(run_command=run_command)
    listing = actions.add_parser("list", parents=[with_store], help="list the baselines")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run_command=_list)


def _add(arguments: argparse.Namespace) -> int:
    need("jobs", "sklearn")
    from gatewatch.jobs import baselines as baseline  # noqa: PLC0415 - scikit-learn is imported only where it is used

    baseline.add(existing_store(arguments), arguments.run)
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    need("jobs", "sklearn")
    from gatewatch.jobs import baselines as baseline  # noqa: PLC0415 - as above

    baseline.remove(existing_store(arguments), arguments.run)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    need("jobs", "sklearn")
    from gatewatch.jobs import baselines as baseline  # noqa: PLC0415 - as above

    store = existing_store(arguments)
    runs = baseline.listed(store)
    if arguments.json:
        print_json(runs)
    elif not runs:
        print(f"{store.url} has no baseline: name a healthy run with `gatewatch baseline add RUN`")
    else:
        print(table(["run"], [[run] for run in runs]))
    return 0
