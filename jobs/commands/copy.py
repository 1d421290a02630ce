"""`gatewatch copy`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError, WriteUnavailable
from gatewatch.jobs.commands.common import Commands, fail, missing_file, positive, print_json
from gatewatch.jobs.text import printable, table

if TYPE_CHECKING:
    from gatewatch.collector.store import Store
    from gatewatch.jobs.copying import Copied, Copier, Patience, Progress, Wanted

_SAID_S: Final = 0.2
_HEADER: Final = ("measurement", "points", "written", "already there", "refused", "values", "found there")
_GO_ON: Final = "run the same command again to go on"


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command; it has two stores."""
    copy = commands.add_parser(
        "copy",
        help="copy the points of one store into another",
        description="Copy the points of one store into another. It may be broken off and run again: what is there "
        "already, by count, is passed over. In the end the values in the destination are counted. An InfluxDB is told "
        "its organisation, bucket and token by the environment, INFLUXDB_V2_…, as everywhere.",
    )
    copy.add_argument(
        "--from", required=True, dest="source", metavar="URL", help="sqlite:///file.db or http://host:8086"
    )
    copy.add_argument("--to", required=True, dest="destination", metavar="URL", help="likewise")
    copy.add_argument("--run", action="append", default=[], metavar="RUN", help="only this run; may be given again")
    copy.add_argument(
        "--measurement", action="append", default=[], metavar="NAME", help="only this measurement; may be given again"
    )
    copy.add_argument("--since", type=_moment, metavar="TIME", help="only points since, such as 2026-01-31 (UTC)")
    copy.add_argument("--dry-run", action="store_true", help="write nothing, and show what would be written")
    how = copy.add_mutually_exclusive_group()
    how.add_argument("--verify", action="store_true", help="compare every value instead of counting; slower")
    how.add_argument("--again", action="store_true", help="write what is there already too")
    copy.add_argument(
        "--timeout",
        type=positive,
        default=60,
        metavar="SECONDS",
        help="how long to wait for a store that does not answer (default: 60)",
    )
    for name, text in (("org", "organisation"), ("bucket", "bucket")):
        copy.add_argument(
            f"--from-{name}", metavar="NAME", help=f"the source's {text}, where it is not the environment's"
        )
    copy.add_argument(
        "--from-token-file", metavar="FILE", help="holds the source's token, where it is not the environment's"
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
    from gatewatch.collector.store import open_store  # noqa: PLC0415 - numpy comes with it, and `--help` needs none
    from gatewatch.jobs.copying import Check, Copier, Patience, Wanted, problems  # noqa: PLC0415 - as above

    source = _open_source(arguments)
    destination = open_store(arguments.destination)
    _see_two(source, destination)
    waiting = _in_spool(source)
    line = _Line(sys.stderr.isatty())
    patience = Patience(arguments.timeout, line.waiting)
    check = Check.AGAIN if arguments.again else Check.VALUES if arguments.verify else Check.COUNTS
    copier = Copier(source, destination, patience, check, line)
    wanted = Wanted(arguments.run, arguments.measurement, arguments.since)
    begin = time.monotonic()
    with closing(source), closing(destination):
        try:
            if source.influxdb is not None:
                source.influxdb.ping(arguments.timeout)
            _see_there(source, wanted)
            if (server := destination.influxdb) is not None:
                patience(lambda: server.ping(arguments.timeout))
            _see_open(destination, patience, arguments.dry_run)
            copied = copier.run(wanted, dry=arguments.dry_run)
        except WriteUnavailable as error:
            line.clear()
            return fail(f"{printable(error)}; {_so_far(copier)}, {_GO_ON}")
        except KeyboardInterrupt:
            line.clear()
            return fail(f"interrupted; {_so_far(copier)}, {_GO_ON}", 130)
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
    """How many points wait on this machine to be written to the source."""
    from gatewatch.collector.config import load_settings  # noqa: PLC0415 - pydantic loads slowly, and `--help` needs none
    from gatewatch.collector.spool.inspect import waiting  # noqa: PLC0415 - as above
    from gatewatch.collector.spool.queue import spool_root  # noqa: PLC0415 - as above

    root = spool_root(load_settings().spool.path)
    return sum(entry.points for entry in waiting(root) if entry.destination == source.destination)


def _open_source(arguments: argparse.Namespace) -> Store:
    from gatewatch.collector.store import open_store  # noqa: PLC0415 - numpy comes with it, and `--help` needs none
    from gatewatch.collector.store.influxdb.token import read_token_file  # noqa: PLC0415 - as above

    file = arguments.from_token_file
    token = None if file is None else read_token_file(file, "--from-token-file")
    store = open_store(arguments.source, org=arguments.from_org, bucket=arguments.from_bucket, token=token)
    if missing_file(store):
        raise ConfigError(f"{store.url} does not exist; name the store to copy with --from")
    return store


def _see_two(source: Store, destination: Store) -> None:
    """See that there are two stores: a file may have several names."""
    one, other = source.path, destination.path
    same_file = one is not None and other is not None and one.exists() and other.exists() and one.samefile(other)
    if same_file or source.destination == destination.destination:
        another = "another file" if source.influxdb is None else "another bucket with --from-bucket"
        raise ConfigError(f"--from and --to are the same store, {source.url}; name {another}")


def _see_there(source: Store, wanted: Wanted) -> None:
    """See that the source can be read and has what was named, before the destination is made."""
    from gatewatch.jobs.copying import parts  # noqa: PLC0415 - numpy comes with it, and `--help` needs none

    with closing(source.history()) as history:
        parts(history, wanted)


def _see_open(destination: Store, patience: Patience, dry: bool) -> None:
    """See that the destination can be written and read, before anything is."""
    if not dry:
        patience(destination.check)
    try:
        with closing(destination.history()) as history:
            patience(history.measurements)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; nothing was copied: what arrives is counted, so the token must be one that may read and write"
        ) from None


def _so_far(copier: Copier) -> str:
    points = sum(each.points for each in copier.copied.values())
    return f"{points:,} points were looked at"


def _print(copied: Sequence[Copied], source: Store, seconds: float, dry: bool) -> None:
    if not copied:
        print(f"{source.url} holds no points that were asked for")
        return
    numbers = [[c.points, c.written, c.already_there, c.refused, c.values, c.found or 0] for c in copied]
    total = [sum(column) for column in zip(*numbers, strict=True)]
    rows = [[c.measurement, *row] for c, row in zip(copied, numbers, strict=True)] + [["in all", *total]]
    written = total[1]
    if dry:
        header = [name.replace("written", "to write") for name in _HEADER if name not in ("refused", "found there")]
        print(table(header, [[*row[:4], row[5]] for row in rows]))
        print("nothing was written")
        return
    print(table(_HEADER, rows))
    if not any(c.points - c.already_there for c in copied):
        print(f"nothing to do: all {total[0]:,} points are there")
        return
    print(f"{written:,} points written in {seconds:.1f} s, {written / seconds:,.0f} a second")
    for each in copied:
        for reason, points in each.reasons.items():
            print(f"refused: {points:,} of {printable(each.measurement)}: {printable(reason)}")


class _Line:
    """Says in one line of a terminal how far a copy is.

    Args:
        shown: whether there is a terminal.
        clock: seconds, monotonic.
    """

    def __init__(self, shown: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._shown = shown
        self._clock = clock
        self._begin = self._said = clock()

    def __call__(self, progress: Progress) -> None:
        """Say it, where it was not said just now."""
        now = self._clock()
        if not self._shown or now - self._said < _SAID_S:
            return
        self._said = now
        of = f" of {printable(progress.part.run)}" if progress.part.run else ""
        text = (
            f"  {progress.number:,} of {progress.parts:,}: {progress.points:,} points, {progress.written:,} to write,"
            f" {progress.points / (now - self._begin):,.0f} a second, {printable(progress.part.measurement)}{of}"
        )
        self._print(text[: shutil.get_terminal_size().columns - 1])

    def waiting(self, text: str) -> None:
        """Say what is waited for, in a line that stays."""
        if self._shown:
            self._print(f"  waiting: {printable(text)}\n")

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            self._print("")

    def _print(self, text: str) -> None:
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
