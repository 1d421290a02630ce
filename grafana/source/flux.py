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
        """Return it as a dashboard holds it."""
        return {"refId": self.ref_id, "datasource": DATASOURCE, "query": self.query}


@dataclass(frozen=True)
class Series:
    """A query whose tables are series over time.

    Attributes:
        query: in Flux.
        labels: the tags that tell the series apart, and `_field` where their fields do. They are their name in a panel.
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
    """Return the query for points, a table for each series and field. InfluxDB filters while it reads.

    Args:
        measurement: its name.
        fields: only these; all where there is none.
        where: conditions on tags, each in terms of `r`.
        start, stop: of the time range; a rule gives its own.
    """
    conditions = [f"r._measurement == {literal(measurement)}", *([one_of("_field", *fields)] if fields else []), *where]
    times = f"start: {start}{f', stop: {stop}' if stop else ''}"
    return "from(bucket: v.defaultBucket)" + pipe(f"range({times})", *map(keep_where, conditions))


def flux(*lines: str) -> str:
    """Return lines as one query."""
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
    """Return steps of a query, each on a line of its own, such as `group()` and `max()`: each takes the one before."""
    return "".join(f"\n  |> {step}" for step in steps)


def keep_where(condition: str) -> str:
    """Return the step that keeps the rows for which a condition holds, in terms of `r`."""
    return f"filter(fn: (r) => {condition})"
