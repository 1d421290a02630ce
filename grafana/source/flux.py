"""Flux for dashboards and rules: the target of a panel, and the pieces that queries are made of.

Only the dashboard's own names are put into a query as they are. What a user chose goes through a variable's `regex`
format, which escapes everything: in a string literal `${...}` would interpolate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from gatewatch.collector.store.columns import TAG
from gatewatch.jobs.queries.flux_values import literal
from grafana.emulator.interpolate import regex_escaped

DATASOURCE_UID: Final = "gatewatch"
DATASOURCE_TYPE: Final = "influxdb"
DATASOURCE: Final = DataSourceRef(type_val=DATASOURCE_TYPE, uid=DATASOURCE_UID)


@dataclass
class Flux(Dataquery, Builder[Dataquery]):
    """A query of a panel, in the form that Grafana's InfluxDB datasource reads.

    Attributes:
        query: Flux, with variables and macros still to be filled in.
        ref_id: its letter in the panel.
    """

    query: str
    ref_id: str = "A"

    def build(self) -> Self:
        """Return itself: it is its own builder."""
        return self

    def to_json(self) -> dict[str, object]:
        """Return it as a dashboard holds it."""
        return {"refId": self.ref_id, "datasource": DATASOURCE, "query": self.query}


def text(value: str) -> str:
    """Return a string literal."""
    return literal(value)


def texts(values: Iterable[str]) -> str:
    """Return a list of string literals."""
    return literal([*values])


def pattern(*values: str) -> str:
    """Return a regular expression that matches these values and no other."""
    escaped = [regex_escaped(value) for value in values]
    return f"/^({'|'.join(escaped)})$/" if len(escaped) > 1 else f"/^{''.join(escaped)}$/"


def chosen(tag: str, variable: str | None = None) -> str:
    """Return the condition that a tag has the value of a variable; the variable has the tag's name where None."""
    return f"r.{tag} =~ /^${{{variable or tag}:regex}}$/"


def one_of(column: str, *values: str) -> str:
    """Return the condition that a column has one of these values."""
    return "(" + " or ".join(f"r.{column} == {text(value)}" for value in values) + ")"


def points(
    measurement: str,
    fields: Iterable[str] = (),
    *where: str,
    start: str = "v.timeRangeStart",
    stop: str = "v.timeRangeStop",
) -> str:
    """Return the query for points, a table for each series and field. InfluxDB filters while it reads.

    Args:
        measurement: its name.
        fields: only these; all where there is none.
        where: conditions on tags, each in terms of `r`.
        start, stop: of the time range; a rule gives its own.
    """
    lines = [
        "from(bucket: v.defaultBucket)",
        f"  |> range(start: {start}{f', stop: {stop}' if stop else ''})",
        f"  |> filter(fn: (r) => r._measurement == {text(measurement)})",
    ]
    if named := tuple(fields):
        lines.append(f"  |> filter(fn: (r) => {one_of('_field', *named)})")
    lines += [f"  |> filter(fn: (r) => {condition})" for condition in where]
    return "\n".join(lines)


def prefix_user_tags(*columns: str) -> str:
    """Return the step that puts `tag:` before each of a user's tags that is named like one of these later columns."""
    return (
        f"  |> rename(fn: (column) => if column =~ /^{TAG}/ or column =~ {pattern(*columns)} "
        f"then {text(TAG)} + column else column)"
    )


def window(fn: str = "mean", *tags: str, every: str = "v.windowPeriod") -> str:
    """Return the steps that make one value for each window and series, with these tags (or `_field`) alone.

    Series that do not differ in these tags become one, with one point for each of them. Without `createEmpty: false` a
    window without points would give a null at the end.

    Args:
        fn: makes one value of a window.
        tags: the columns that tell series apart.
        every: the width of a window.
    """
    columns = ["_time", "_value", *tags]
    return (
        f"  |> aggregateWindow(every: {every}, fn: {fn}, createEmpty: false)\n"
        f"  |> keep(columns: {texts(columns)})\n"
        f"  |> group(columns: {texts(tags)})"
    )


def combined(fn: str, *tags: str) -> str:
    """Return the steps that make one value for each window of all series that share these tags."""
    return flux(window(fn, *tags), window(fn, *tags))


def flux(*lines: str) -> str:
    """Return lines as one query."""
    return "\n".join(lines)


def pipe(*steps: str) -> str:
    """Return steps of a query, one a line, such as `group()` and `max()`: each takes what the one before gives."""
    return "\n".join(f"  |> {step}" for step in steps)


def keep(*columns: str) -> str:
    """Return the step that drops all other columns."""
    return f"keep(columns: {texts(columns)})"


def newest(rows: int, column: str = "_time") -> str:
    """Return the steps that keep the newest rows of one table, the newest first."""
    return f"sort(columns: {texts([column])}, desc: true)\n  |> limit(n: {rows})"


def values(column: str) -> str:
    """Return the step that makes a list of the values of a column of the first table."""
    return f"findColumn(fn: (key) => true, column: {text(column)})"
