"""The steps of a query in Flux. Each reads the output of the step before; `flux.pipe` writes one step per line."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import GOING_EVENTS
from gatewatch.collector.store.columns import TAG
from gatewatch.jobs.queries.flux_values import literal
from grafana.source.flux import pattern, pipe

OLDEST_FIRST: Final = 'sort(columns: ["_time"])'
NEWEST_FIRST: Final = 'sort(columns: ["_time"], desc: true)'
GOES_ON: Final = " or ".join(f"r._value == {literal(event)}" for event in GOING_EVENTS)
"""Whether a row holds an event of a run that has not ended."""


def extend(columns: str) -> str:
    """Return the step that adds columns to each row, or replaces them; they are written as in a record of Flux."""
    return f"map(fn: (r) => ({{r with {columns}}}))"


def map_to(columns: str) -> str:
    """Return the step that replaces each row by these columns; they are written as in a record of Flux."""
    return f"map(fn: (r) => ({{{columns}}}))"


def keep(*columns: str) -> str:
    """Return the step that drops all other columns."""
    return f"keep(columns: {literal([*columns])})"


def group(*columns: str) -> str:
    """Return the step that makes one table per combination of values of these columns."""
    return f"group(columns: {literal([*columns])})"


def newest(rows: int, column: str = "_time") -> str:
    """Return the steps that keep the newest rows of one table, the newest first."""
    return f"sort(columns: {literal([column])}, desc: true)\n  |> limit(n: {rows})"


def largest(rows: int) -> str:
    """Return the step that keeps the rows of one table with the largest values."""
    return f'top(n: {rows}, columns: ["_value"])'


def column_values(column: str) -> str:
    """Return the step that makes a list of the values of a column of the first table."""
    return f"findColumn(fn: (key) => true, column: {literal(column)})"


def aggregate_window(fn: str = "mean", every: str = "v.windowPeriod") -> str:
    """Return the step that computes one value per window and series.

    Without `createEmpty: false` a last window without points would have a null.
    """
    return f"aggregateWindow(every: {every}, fn: {fn}, createEmpty: false)"


def held(fn: str, times: str = "_stop") -> str:
    """Return the steps that compute one value per window and series; one without points has that of the one before.

    Args:
        fn: the function that reduces a window to one value.
        times: `_start` or `_stop`: which end of the window is the time of its value.
    """
    every = f'aggregateWindow(every: v.windowPeriod, fn: {fn}, timeSrc: "{times}")'
    return f"{every}\n  |> fill(usePrevious: true)\n  |> filter(fn: (r) => exists r._value)"


def window(fn: str, *tags: str) -> str:
    """Return the steps that compute one value per window and series, and keep only these tags (or `_field`).

    Series that do not differ in these tags become one series, with one point per original series and window.

    Args:
        fn: the function that reduces a window to one value.
        tags: the columns that distinguish the series.
    """
    return pipe(aggregate_window(fn), keep("_time", "_value", *tags), group(*tags))


def prefix_user_tags(*columns: str) -> str:
    """Return the step that puts `tag:` before each of a user's tags that is named like one of these later columns."""
    named = f"column =~ /^{TAG}/ or column =~ {pattern(*columns)}"
    return f"rename(fn: (column) => if {named} then {literal(TAG)} + column else column)"
