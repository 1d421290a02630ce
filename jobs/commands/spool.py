"""`gatewatch spool status` and `gatewatch spool flush`."""

from __future__ import annotations

import argparse

from gatewatch.collector.spool import flush as spool_flush
from gatewatch.collector.spool.inspect import pending
from gatewatch.jobs.commands.common import print_list, spool_folder
from gatewatch.jobs.console import fail_each, show_progress
from gatewatch.jobs.text import printable


def status(arguments: argparse.Namespace) -> None:
    """Print what waits and what was rejected, by store."""
    root = spool_folder()
    entries = [entry for entry in pending(root) if entry.points or entry.rejected or entry.damaged]
    rows = [
        [e.destination.get("url", ""), e.destination.get("bucket", ""), e.points, e.bytes / 2**20, e.rejected]
        for e in entries
    ]
    header = ["store", "bucket", "points", "MiB", "refused"]
    if print_list(arguments, [entry.as_json() for entry in entries], header, rows, f"nothing waits in {root}"):
        for entry in entries:
            if entry.rejected:
                print(f"\nrefused: {entry.rejected:,}, in {printable(entry.rejected_file)}")
                print(f"  the last because: {printable(entry.reason)}")
            if entry.damaged:
                print(f"\ndamaged, and passed over: {entry.damaged:,} records in {printable(entry.folder)}")


def flush(arguments: argparse.Namespace) -> int:
    """Ship what ended processes left, and return the exit status: 1 where something still waits."""
    root = spool_folder()
    results = list(spool_flush.flush(root, arguments.timeout, _show_waiting))
    rows = [[result.url, result.shipped, result.rejected, result.left] for result in results]
    header = ["store", "shipped", "refused", "still waiting"]
    print_list(arguments, results, header, rows, f"nothing waits in {root}")
    fail_each(printable(result.problem) for result in results if result.problem is not None)
    return 1 if any(result.left for result in results) else 0


def _show_waiting(url: str, points: int) -> None:
    show_progress(f"  {points:,} points wait for {printable(url)}\n")
