"""Flux for dashboards and rules: the target of a panel, what is read, and how a query is put together.

Only the dashboard's own names are put into a query as they are. What a user chose goes through a variable's `regex`
format, which escapes everything: in a string literal `${...}` would interpolate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from gatewatch.collector.schema import LOOK, LOOKED_AT
from gatewatch.jobs.queries.flux_values import literal
from grafana.emulator.interpolate import regex_escaped

DATASOURCE_UID: Final = "gatewatch"
DATASOURCE: Final = DataSourceRef("influxdb", DATASOURCE_UID)


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
        """Return the target in the form that a dashboard's JSON has."""
        return {"refId": self.ref_id, "datasource": DATASOURCE, "query": self.query}


@dataclass(frozen=True)
class Series:
    """A query whose tables are series over time.

    Attributes:
        query: in Flux.
        labels: the tags that distinguish the series, and `_field` where series differ in their field. A panel names the
            series by them.
    """

    query: str
    labels: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The name of a series in terms of Grafana's labels; empty where there are none."""
        labels = ["name" if label == "_field" else f"labels.{label}" for label in self.labels]
        return " ".join(f"${{__field.{label}}}" for label in labels)


def pattern(*values: str) -> str:
    """Return a regular expression that matches these values and no other."""
    escaped = [regex_escaped(value) for value in values]
    return f"/^({'|'.join(escaped)})$/" if len(escaped) > 1 else f"/^{''.join(escaped)}$/"


def chosen(tag: str, variable: str | None = None) -> str:
    """Return the condition that a tag has the value of a variable; the variable has the tag's name where None."""
    return f"r.{tag} =~ /^${{{variable or tag}:regex}}$/"


def one_of(column: str, *values: str) -> str:
    """Return the condition that a column has one of these values."""
    return "(" + " or ".join(f"r.{column} == {literal(value)}" for value in values) + ")"


def points(
    measurement: str,
    fields: Sequence[str] = (),
    *where: str,
    start: str = "v.timeRangeStart",
    stop: str = "v.timeRangeStop",
) -> str:
    """Return the query for points, one table per series and field. InfluxDB filters while it reads.

    Of a backtest that looks at a fixed probe too these are the points of its windows, unless a condition names the tag
    `look`.

    Args:
        measurement: name of the measurement.
        fields: only these fields; empty: all fields.
        where: conditions on tags, as expressions in `r`.
        start, stop: the ends of the time range.
    """
    windows = measurement in LOOKED_AT and not any(f"r.{LOOK} " in condition for condition in where)
    conditions = [
        f"r._measurement == {literal(measurement)}",
        *([one_of("_field", *fields)] if fields else []),
        *([f"not exists r.{LOOK}"] if windows else []),
        *where,
    ]
    times = f"start: {start}{f', stop: {stop}' if stop else ''}"
    return "from(bucket: v.defaultBucket)" + pipe(f"range({times})", *map(keep_where, conditions))


def flux(*lines: str) -> str:
    """Join lines to one query."""
    return "\n".join(lines)


def union(**tables: str) -> str:
    """Return named tables as one."""
    named = [f"{name} = {query}" for name, query in tables.items()]
    return flux(*named, f"union(tables: [{', '.join(tables)}])")


def inline_union(*tables: str) -> str:
    """Return tables as one, each in lines of its own."""
    return "".join(["union(tables: [\n", *(f"  {table},\n" for table in tables), "])"])


def dictionary(pairs: Mapping[str, str]) -> str:
    """Return pairs of texts as the list that `dict.get` reads; the query must import `dict`."""
    return f"[{', '.join(f'{literal(name)}: {literal(value)}' for name, value in pairs.items())}]"


def pipe(*steps: str) -> str:
    """Return steps such as `group()` and `max()`, one per line, each piped into the next."""
    return "".join(f"\n  |> {step}" for step in steps)


def keep_where(condition: str) -> str:
    """Return the step that keeps the rows for which a condition holds, in terms of `r`."""
    return f"filter(fn: (r) => {condition})"
