"""`gatewatch spool status` and `gatewatch spool flush`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gatewatch.jobs.commands.common import Commands, positive, print_json
from gatewatch.jobs.console import fail
from gatewatch.jobs.text import printable, table


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command; it is about whatever store something waits for."""
    spool = commands.add_parser("spool", help="show or ship the points that wait on this machine")
    actions = spool.add_subparsers(title="actions", required=True, metavar="ACTION")
    status = actions.add_parser(
        "status",
        help="show waiting and rejected points by store",
        description="Show the points that wait in the spool, a folder on this machine, until their store has them, and"
        " those that a store has rejected.",
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    status.set_defaults(run_command=_status)
    flush = actions.add_parser(
        "flush",
        help="ship the points that ended processes left behind",
        description="Ship the points that ended processes left in the spool, a folder on this machine, to their store.",
    )
    flush.add_argument("--json", action="store_true", help="print JSON")
    flush.add_argument(
        "--timeout",
        type=positive,
        default=30,
        metavar="SECONDS",
        help="how long to wait for a store that does not answer (default: 30)",
    )
    flush.set_defaults(run_command=_flush)


def _root() -> Path:
    from gatewatch.collector.config import load_settings  # noqa: PLC0415 - pydantic loads slowly, and `--help` needs none
    from gatewatch.collector.spool.queue import spool_root  # noqa: PLC0415 - as above

    return spool_root(load_settings().spool.path)


def _status(arguments: argparse.Namespace) -> int:
    from gatewatch.collector.spool.inspect import pending  # noqa: PLC0415 - only this command needs it

    root = _root()
    entries = [entry for entry in pending(root) if entry.points or entry.rejected or entry.damaged]
    if arguments.json:
        print_json([entry.as_json() for entry in entries])
    elif not entries:
        print(f"nothing waits in {root}")
    else:
        rows = [
            [
                entry.destination.get("url", ""),
                entry.destination.get("bucket", ""),
                entry.points,
                entry.bytes / 2**20,
                entry.rejected,
            ]
            for entry in entries
        ]
        print(table(["store", "bucket", "points", "MiB", "refused"], rows))
        for entry in entries:
            if entry.rejected:
                print(f"\nrefused: {entry.rejected:,}, in {printable(entry.rejected_file)}")
                print(f"  the last because: {printable(entry.reason)}")
            if entry.damaged:
                print(f"\ndamaged, and passed over: {entry.damaged:,} records in {printable(entry.folder)}")
    return 0


def _flush(arguments: argparse.Namespace) -> int:
    from gatewatch.collector.spool.flush import flush  # noqa: PLC0415 - only this command needs it

    root = _root()
    done = list(flush(root, arguments.timeout, _say_waiting if sys.stderr.isatty() else None))
    if arguments.json:
        print_json([{name: getattr(one, name) for name in one.__slots__} for one in done])
    elif not done:
        print(f"nothing waits in {root}")
    else:
        rows = [[one.url, one.shipped, one.rejected, one.left] for one in done]
        print(table(["store", "shipped", "refused", "still waiting"], rows))
    for one in done:
        if one.problem is not None:
            fail(printable(one.problem))
    return 1 if any(one.left for one in done) else 0


def _say_waiting(url: str, points: int) -> None:
    print(f"  {points:,} points wait for {printable(url)}", file=sys.stderr)
