"""What each query of the dashboards takes when they are opened, milliseconds.

    python -m bench.dashboards            # about a quarter of an hour; the machine should do nothing else
    python -m bench.dashboards --quick    # a minute: that everything runs

A policy that trades for a year, with a capture every five minutes: what the default cadence gives where a step comes
that seldom. Then the same bucket with 500 more runs. Each dashboard is opened as it is when it is first seen (its own
time range, the run heard of last), and the first bucket over the whole year as well. The slowest of a panel's queries
is shown, the median of the rounds, with the rows that it gave.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from bench.rounds import extent
from bench.shipping import influxd
from gatewatch.collector.line_protocol import encode
from gatewatch.collector.schema import Point
from gatewatch.collector.store.sqlite.store import SqliteStore
from grafana.emulator.check import PanelSummary, Window, check
from grafana.emulator.frames import FluxSource
from grafana.source import dashboards
from tests import seeded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gatewatch.collector.store import Store

YEAR: Final = 365 * seeded.DAY
APART: Final = 300 * 10**9
RUNS: Final = 500
CAPTURES_OF_A_RUN: Final = 30
QUICK: Final = (12 * 3600 * 10**9, 20)
"""How far captures are apart, and how many runs there are, where only everything is to run once."""
BATCH: Final = 5_000
_SCORED: Final = range(40, 80)
"""Captures of the pattern: those that have scores too."""
_NAME: Final = seeded.HEALTHY.encode()
_ONE_MS: Final = 1_000.0
_MANY_MS: Final = 3_000.0

_STEP: Final = re.compile(rb"(?<=[ ,])step=\d+i")

Pattern = list[list[tuple[bytes, int]]]
"""Of each capture the lines without their times, with a place for the step, and how much later each is."""


class Kept(SqliteStore):
    """A store that also keeps what it is given."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.points: list[Point] = []

    def write(self, points: Iterable[Point]) -> None:
        """See `Store.write`."""
        given = list(points)
        self.points += given
        super().write(given)


def pattern(folder: Path, now: int) -> Pattern:
    """What is written of one layer of a run, by its collector and by the jobs, capture by capture."""
    store = Kept(str(folder / "pattern.db"))
    seeded.seed(store, now, [seeded.HEALTHY])
    begin = seeded.begin(now, silent=300 * 10**9)
    found: Pattern = [[] for _ in range(seeded.CAPTURES)]
    for point in store.points:
        number = (point.time - begin) // seeded.EVERY
        other = point.tags.get("layer", seeded.LAYERS[0]) not in (seeded.LAYERS[0], "_model")
        if point.tags.get("run") == seeded.HEALTHY and 0 <= number < seeded.CAPTURES and not other:
            line = encode([point]).rstrip(b"\n").rpartition(b" ")[0]
            held = _STEP.sub(b"step=%(step)di", line.replace(b"%", b"%%"))
            found[number].append((held, point.time - begin - number * seeded.EVERY))
    return [found[number] for number in _SCORED]


def lines(captures: Pattern, run: str, times: range) -> Iterator[bytes]:
    """A run that looks like the pattern, with captures at these times."""
    name = run.encode()
    named = [[(line.replace(_NAME, name), later) for line, later in capture] for capture in captures]
    for number, moment in enumerate(times):
        for line, later in named[number % len(named)]:
            yield b"%s %d\n" % (line % {b"step": number * 10}, moment + later)


def write(store: Store, given: Iterator[bytes]) -> int:
    """Write lines in batches; how many there were."""
    batch: list[bytes] = []
    count = 0
    for line in given:
        batch.append(line)
        if len(batch) == BATCH:
            store.write_lines(b"".join(batch))
            count, batch = count + len(batch), []
    store.write_lines(b"".join(batch))
    return count + len(batch)


def measured(open_all: Callable[[], Iterator[PanelSummary]], rounds: int) -> dict[tuple[str, str], PanelSummary]:
    """Each panel's row with the median of its times."""
    by_panel: dict[tuple[str, str], list[PanelSummary]] = {}
    for _ in range(rounds + 1):  # the first fills the server's caches
        for row in open_all():
            by_panel.setdefault((row.dashboard, row.panel), []).append(row)
    medians = {}
    for key, rows in by_panel.items():
        middle = statistics.median(row.milliseconds for row in rows[1:])
        problem = next((row.problem for row in rows if row.problem), None)
        medians[key] = replace(rows[-1], milliseconds=middle, problem=problem)
    return medians


def show(title: str, found: Mapping[tuple[str, str], PanelSummary], most: float | None) -> None:
    """Print the table, and what took longer than it should."""
    print(f"\n{title}")
    for row in found.values():
        late = " too long" if most is not None and row.milliseconds > most else ""
        print(
            f"  {row.dashboard:<11}{row.panel[:42]:<44}{row.queries:>3} queries{row.rows:>8,} rows"
            f"{row.milliseconds:>8,.0f} ms{late}{f'  {row.problem}' if row.problem else ''}"
        )
    slowest = max(found.values(), key=lambda row: row.milliseconds)
    asked = "" if most is None else f"; each should be below {most:,.0f}"
    print(f"  The slowest: {slowest.dashboard}, {slowest.panel}: {slowest.milliseconds:,.0f} ms{asked}.")


def main() -> int:
    """Measure and print."""
    asked = extent(__doc__)
    apart, runs = QUICK if asked.quick else (APART, RUNS)
    rounds = min(asked.rounds, 3)
    boards = list(dashboards().values())
    try:
        with influxd() as (server, folder):
            captures = pattern(folder, time.time_ns())
            bucket = server.bucket()
            store = server.store(bucket)
            source = FluxSource(server.url, org=server.org, bucket=bucket, token=server.token)

            def opened(window: Window | None = None) -> Iterator[PanelSummary]:
                return check(boards, source, now=time.time_ns(), window=window)

            now = time.time_ns()
            year = range(now - YEAR, now, apart)
            count = write(store, lines(captures, "a-year", year))
            print(f"A year of one run: {len(year):,} captures, {count:,} points")
            one = f"A year of one run, as the dashboards open ({len(year):,} captures)"
            show(one, measured(opened, rounds), _ONE_MS)
            whole = measured(lambda: opened((time.time_ns() - YEAR, time.time_ns())), rounds)
            show("The same over the whole year", whole, None)
            for number in range(runs):
                begin = now - (number + 1) * YEAR // 13 // runs
                times = range(begin, begin + CAPTURES_OF_A_RUN * seeded.EVERY, seeded.EVERY)
                write(store, lines(captures, f"run-{number:04d}", times))
            show(f"With {runs} runs more, as the dashboards open", measured(opened, rounds), _MANY_MS)
    except pytest.skip.Exception as missing:
        print(f"The dashboards are not measured: {missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
