"""`gatewatch copy`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.jobs.commands.common import Commands, positive, print_json
from gatewatch.jobs.console import fail
from gatewatch.jobs.text import printable, table

if TYPE_CHECKING:
    from gatewatch.collector.store import Store
    from gatewatch.jobs.copying.copier import Progress
    from gatewatch.jobs.copying.statistics import Copied

_REDRAW_S: Final = 0.2
_HEADER: Final = ("measurement", "points", "written", "already there", "refused", "values", "found there")
_GO_ON: Final = "run the same command again to go on"


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command; it has two stores."""
    copy = commands.add_parser(
        "copy",
        help="copy the points of one store into another",
        description="Copy the points of one store into another. It is safe to interrupt and to run again: points that "
        "the destination has already, by count, are not written again. At the end every value is counted in the "
        "destination. Organisation, bucket and token of an InfluxDB come from INFLUXDB_V2_ORG, _BUCKET and _TOKEN.",
    )
    copy.add_argument(
        "--from", required=True, dest="source", metavar="URL", help="sqlite:///file.db or http://host:8086"
    )
    copy.add_argument("--to", required=True, dest="destination", metavar="URL", help="likewise")
    copy.add_argument("--run", action="append", default=[], metavar="RUN", help="copy only this run; repeatable")
    copy.add_argument(
        "--measurement", action="append", default=[], metavar="NAME", help="copy only this measurement; repeatable"
    )
    copy.add_argument("--since", type=_moment, metavar="TIME", help="copy only points since, such as 2026-01-31 (UTC)")
    copy.add_argument("--dry-run", action="store_true", help="write nothing, and show what would be written")
    how = copy.add_mutually_exclusive_group()
    how.add_argument("--verify", action="store_true", help="compare every value instead of counting; slower")
    how.add_argument("--again", action="store_true", help="also write what the destination has already")
    copy.add_argument(
        "--timeout",
        type=positive,
        default=60,
        metavar="SECONDS",
        help="how long to retry while a store does not answer (default: 60)",
    )
    copy.add_argument("--from-org", metavar="NAME", help="organisation of the source (default: INFLUXDB_V2_ORG)")
    copy.add_argument("--from-bucket", metavar="NAME", help="bucket of the source (default: INFLUXDB_V2_BUCKET)")
    copy.add_argument(
        "--from-token-file", metavar="FILE", help="file with the token of the source (default: INFLUXDB_V2_TOKEN)"
    )
    copy.add_argument("--json", action="store_true", help="print JSON")
    copy.set_defaults(run_command=_run)


def _moment(text: str) -> int:
    from gatewatch.collector.times import nanoseconds  # noqa: PLC0415 - numpy comes with it, and `--help` needs none

    try:
        return nanoseconds(datetime.fromisoformat(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time; give one such as 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None


def _run(arguments: argparse.Namespace) -> int:
    """Copy, and return the exit status: 1 where the destination lacks values, refused some or went away."""
    from gatewatch.collector.store import open_store  # noqa: PLC0415 - numpy comes with it, and `--help` needs none
    from gatewatch.jobs.copying.copier import Check, Copier  # noqa: PLC0415 - as above
    from gatewatch.jobs.copying.plan import Selection  # noqa: PLC0415 - as above
    from gatewatch.jobs.copying.statistics import problems  # noqa: PLC0415 - as above
    from gatewatch.jobs.retry import Retry  # noqa: PLC0415 - as above

    source = _open_source(arguments)
    destination = open_store(arguments.destination)
    _check_different(source, destination)
    waiting = _in_spool(source)
    line = _ProgressLine(sys.stderr.isatty())
    retry = Retry(arguments.timeout, line.show_problem)
    check = Check.AGAIN if arguments.again else Check.VALUES if arguments.verify else Check.COUNTS
    copier = Copier(source, destination, retry, check, line.show)
    selection = Selection(arguments.run, arguments.measurement, arguments.since)
    begin = time.monotonic()
    with closing(source), closing(destination):
        try:
            copied = copier.run(selection, dry=arguments.dry_run)
        except (WriteUnavailable, KeyboardInterrupt) as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            points = sum(each.points for each in copier.copied.values())
            what = "interrupted" if interrupted else printable(error)
            line.clear()
            return fail(f"{what}; {points:,} points were looked at, {_GO_ON}", 130 if interrupted else 1)
        finally:
            line.clear()
    if arguments.json:
        print_json([asdict(each) for each in copied])
    else:
        _print(copied, source, time.monotonic() - begin, arguments.dry_run)
    found = list(problems(copied))
    for problem in found:
        fail(printable(problem))
    if waiting:
        wait = "point waits" if waiting == 1 else "points wait"
        fail(f"{waiting:,} {wait} in the spool for {source.url}: `gatewatch spool flush`, then copy again")
    return 1 if found else 0


def _in_spool(source: Store) -> int:
    """Return how many points wait on this machine to be written to the source."""
    from gatewatch.collector.config import load_settings  # noqa: PLC0415 - pydantic loads slowly, and `--help` needs none
    from gatewatch.collector.spool.inspect import pending  # noqa: PLC0415 - as above
    from gatewatch.collector.spool.queue import spool_root  # noqa: PLC0415 - as above

    root = spool_root(load_settings().spool.path)
    return sum(entry.points for entry in pending(root) if entry.destination == source.destination)


def _open_source(arguments: argparse.Namespace) -> Store:
    from gatewatch.collector.store import open_store  # noqa: PLC0415 - numpy comes with it, and `--help` needs none
    from gatewatch.collector.store.influxdb.settings import read_token_file  # noqa: PLC0415 - as above

    file = arguments.from_token_file
    token = None if file is None else read_token_file(file, "--from-token-file")
    store = open_store(arguments.source, org=arguments.from_org, bucket=arguments.from_bucket, token=token)
    if not store.exists():
        raise ConfigError(f"{store.url} does not exist; name the store to copy with --from")
    return store


def _check_different(source: Store, destination: Store) -> None:
    """Raise where both are one store: a file may have several names."""
    one, other = source.path, destination.path
    same_file = one is not None and other is not None and one.exists() and other.exists() and one.samefile(other)
    if same_file or source.destination == destination.destination:
        another = "another file" if source.influxdb is None else "another bucket with --from-bucket"
        raise ConfigError(f"--from and --to are the same store, {source.url}; name {another}")


def _print(copied: Sequence[Copied], source: Store, seconds: float, dry: bool) -> None:
    if not copied:
        print(f"{source.url} holds no points that were asked for")
        return
    numbers = [[c.points, c.written, c.already_there, c.refused, c.values, c.found or 0] for c in copied]
    total = [sum(column) for column in zip(*numbers, strict=True)]
    rows = [[c.measurement, *row] for c, row in zip(copied, numbers, strict=True)] + [["in all", *total]]
    if dry:
        shown = [0, 1, 2, 3, 5]
        header = [_HEADER[i].replace("written", "to write") for i in shown]
        print(f"{table(header, [[row[i] for i in shown] for row in rows])}\nnothing was written")
        return
    print(table(_HEADER, rows))
    points, written, already_there, *_ = total
    if points == already_there:
        print(f"nothing to do: all {points:,} points are there")
        return
    print(f"{written:,} points written in {seconds:.1f} s, {written / seconds:,.0f} a second")
    for each in copied:
        for reason, number in each.reasons.items():
            print(f"refused: {number:,} of {printable(each.measurement)}: {printable(reason)}")


class _ProgressLine:
    """Shows how far a copy is, in one line of a terminal.

    Args:
        shown: whether there is a terminal.
    """

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._begin = self._last = time.monotonic()

    def show(self, progress: Progress) -> None:
        """Show it, where the last time is long enough ago."""
        now = time.monotonic()
        if now - self._last < _REDRAW_S:
            return
        self._last = now
        of = f" of {printable(progress.part.run)}" if progress.part.run else ""
        text = (
            f"  {progress.number:,} of {progress.parts:,}: {progress.points:,} points, {progress.written:,} to write,"
            f" {progress.points / (now - self._begin):,.0f} a second, {printable(progress.part.measurement)}{of}"
        )
        self._print(text[: shutil.get_terminal_size().columns - 1])

    def show_problem(self, problem: str) -> None:
        """Show why the copy waits, in a line that stays."""
        self._print(f"  waiting: {printable(problem)}\n")

    def clear(self) -> None:
        """Remove the line."""
        self._print("")

    def _print(self, text: str) -> None:
        if self._shown:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
