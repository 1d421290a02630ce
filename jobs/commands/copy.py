"""`gatewatch copy`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import closing

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.collector.store import Store, open_store
from gatewatch.collector.store.influxdb.settings import read_token_file
from gatewatch.collector.user_folders import BUCKET_ID
from gatewatch.jobs.commands.common import points_waiting, print_list, say_waiting
from gatewatch.jobs.console import ProgressLine, fail, fail_each, show_progress
from gatewatch.jobs.copying.copier import Check, Copier, Progress
from gatewatch.jobs.copying.counts import Copied, problems
from gatewatch.jobs.copying.plan import CopyScope
from gatewatch.jobs.retry import Retry
from gatewatch.jobs.text import printable


def run(arguments: argparse.Namespace) -> int:
    """Copy, and return the exit status: 1 where the destination lacks values, refused some or went away."""
    file = arguments.from_token_file
    token = None if file is None else read_token_file(file, "--from-token-file", pipes=True)
    source = open_store(arguments.source, org=arguments.from_org, bucket=arguments.from_bucket, token=token)
    if not source.exists():
        raise ConfigError(f"{source.url} does not exist; name the store to copy with --from")
    destination = open_store(arguments.destination)
    _check_different(source, destination)
    waiting = points_waiting(source)
    retry = Retry(arguments.timeout, lambda problem: show_progress(f"  waiting: {printable(problem)}\n"))
    check = Check.AGAIN if arguments.again else Check.VALUES if arguments.verify else Check.COUNTS
    copier = Copier(source, destination, retry, check, _Progress())
    selection = CopyScope(arguments.run, arguments.measurement, arguments.since)
    begin = time.monotonic()
    with closing(source), closing(destination):
        try:
            copied = copier.run(selection, dry=arguments.dry_run)
        except (WriteUnavailable, KeyboardInterrupt) as error:
            what, status = ("interrupted", 130) if isinstance(error, KeyboardInterrupt) else (printable(error), 1)
            points = sum(each.points for each in copier.copied.values())
            show_progress("")
            return fail(f"{what}; {points:,} points were looked at, run the same command again to go on", status)
        finally:
            show_progress("")
    _print(arguments, copied, source, time.monotonic() - begin)
    status = fail_each(map(printable, problems(copied)))
    say_waiting(waiting, source, "copy again")
    return status


def _check_different(source: Store, destination: Store) -> None:
    """Raise where both are one store: a file may have several names."""
    one, other = source.path, destination.path
    same_file = one is not None and other is not None and one.exists() and other.exists() and one.samefile(other)
    names = [store.resolve_destination() for store in (source, destination)]
    same_bucket = BUCKET_ID in names[0] and all(names[0][name] == names[1].get(name) for name in ("url", BUCKET_ID))
    if same_file or same_bucket or names[0] == names[1]:
        another = "another file" if source.influxdb is None else "another bucket with --from-bucket"
        raise ConfigError(f"--from and --to are the same store, {source.url}; name {another}")


def _print(arguments: argparse.Namespace, copied: Sequence[Copied], source: Store, seconds: float) -> None:
    """Print the counts of each measurement and their sums, and what they amount to."""
    dry = arguments.dry_run
    fields = ["points", "written", "already_there"] + (["values"] if dry else ["refused", "values", "found"])
    names = {"written": "to write" if dry else "written", "already_there": "already there", "found": "found there"}
    total = {field: sum(getattr(each, field) or 0 for each in copied) for field in fields}
    rows = [[each.measurement, *(getattr(each, field) or 0 for field in fields)] for each in copied]
    rows += [["in all", *total.values()]] if copied else []
    nothing = f"{source.url} holds no points that were asked for"
    header = ["measurement", *(names.get(field, field) for field in fields)]
    if not print_list(arguments, copied, header, rows, nothing):
        return
    if dry:
        print("nothing was written")
    elif total["points"] == total["already_there"]:
        print(f"nothing to do: all {total['points']:,} points are there")
    else:
        written = total["written"]
        print(f"{written:,} points written in {seconds:.1f} s, {written / seconds:,.0f} a second")
        for each in copied:
            for reason, number in each.reasons.items():
                print(f"refused: {number:,} of {printable(each.measurement)}: {printable(reason)}")


class _Progress:
    """Show how far a copy is in one line of a terminal."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._line = ProgressLine()

    def __call__(self, progress: Progress) -> None:
        seconds = max(time.monotonic() - self._begin, 0.001)
        of = f" of {printable(progress.part.run)}" if progress.part.run else ""
        self._line.show(
            f"  {progress.number:,} of {progress.parts:,}: {progress.points:,} points, {progress.written:,} to write,"
            f" {progress.points / seconds:,.0f} a second, {printable(progress.part.measurement)}{of}"
        )
