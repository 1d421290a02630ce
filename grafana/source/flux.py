"""Flux as dashboards and rules write it: the target of a panel, and the pieces that queries are put together from.

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
        """Itself: it is its own builder."""
        return self

    def to_json(self) -> dict[str, object]:
        """As it stands in a dashboard."""
        return {"refId": self.ref_id, "datasource": DATASOURCE, "query": self.query}


def text(value: str) -> str:
    """A string literal."""
    return literal(value)


def texts(values: Iterable[str]) -> str:
    """A list of string literals."""
    return literal([*values])


def pattern(*values: str) -> str:
    """A regular expression that these values match and no other."""
    escaped = [regex_escaped(value) for value in values]
    return f"/^({'|'.join(escaped)})$/" if len(escaped) > 1 else f"/^{''.join(escaped)}$/"


def chosen(tag: str, variable: str | None = None) -> str:
    """The condition that a tag is what is chosen of a variable, of the same name where none is given."""
    return f"r.{tag} =~ /^${{{variable or tag}:regex}}$/"


def one_of(column: str, *values: str) -> str:
    """The condition that a column has one of a few known values."""
    return "(" + " or ".join(f"r.{column} == {text(value)}" for value in values) + ")"


def points(
    measurement: str,
    fields: Iterable[str] = (),
    *where: str,
    start: str = "v.timeRangeStart",
    stop: str = "v.timeRangeStop",
) -> str:
    """The points of a measurement, a table for each series and field. InfluxDB does all of it while it reads.

    Args:
        measurement: its name.
        fields: only these; all of them where there is none.
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


def apart(*columns: str) -> str:
    """Puts `tag:` before the name of each of the user's tags that one of these columns has, which come later."""
    return (
        f"  |> rename(fn: (column) => if column =~ /^{TAG}/ or column =~ {pattern(*columns)} "
        f"then {text(TAG)} + column else column)"
    )


def window(fn: str = "mean", *tags: str, every: str = "v.windowPeriod") -> str:
    """One value for each window and series, and of its columns only the time, the value, `_field` and these tags.

    Series that then look alike are one: leave no tag out that tells them apart. Without `createEmpty: false` a window
    without points would leave a null at the end.
    """
    columns = ["_time", "_value", *tags]
    return (
        f"  |> aggregateWindow(every: {every}, fn: {fn}, createEmpty: false)\n"
        f"  |> keep(columns: {texts(columns)})\n"
        f"  |> group(columns: {texts(tags)})"
    )


def combined(fn: str, *tags: str) -> str:
    """One value for each window of all series that share these tags; `window` leaves one of each series."""
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
