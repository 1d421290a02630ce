"""Which points a copy takes, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.text import nearest, safe_repr
from gatewatch.jobs.text import printable

if TYPE_CHECKING:
    from gatewatch.collector.store.history import History


@dataclass(frozen=True, slots=True)
class CopyScope:
    """Which points a copy takes: all of them, unless an attribute restricts them.

    Attributes:
        runs: only these; points without a run are then left out.
        measurements: only these.
        since: only points at this time or later, nanoseconds since the Unix epoch.
    """

    runs: Sequence[str] = ()
    measurements: Sequence[str] = ()
    since: int | None = None


class Part(NamedTuple):
    """The points of a measurement that have this run; "" stands for the points without a run."""

    measurement: str
    run: str


def parts(history: History, selection: CopyScope) -> list[Part]:
    """Return the parts of a copy, run after run, so that each run is complete early; points without a run come last.

    Raises:
        ConfigError: the source does not have a run or a measurement that was named.
    """
    there = {name: history.runs(name) for name in history.measurements()}
    _check_named("measurement", selection.measurements, there, f"it has {', '.join(map(printable, there)) or 'none'}")
    chosen = {name: runs for name, runs in there.items() if name in (selection.measurements or there)}
    runs = sorted({run for each in chosen.values() for run in each}, key=lambda run: (run == "", run))
    _check_named("run", selection.runs, runs, "see `gatewatch runs --store URL`")
    return [
        Part(name, run)
        for run in runs
        if run in (selection.runs or runs)
        for name, of_these in chosen.items()
        if run in of_these
    ]


def _check_named(what: str, named: Iterable[str], there: Iterable[str], remedy: str) -> None:
    for name in named:
        if name not in there:
            raise ConfigError(
                f"--{what} {safe_repr(name)}: the source has no points of it; {remedy}{nearest(name, there)}"
            )
