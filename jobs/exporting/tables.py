"""The tables of a run: one for each measurement, and the columns of each, the same in every piece of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from gatewatch.collector.schema import LOOK, LOOKED_AT, SCHEMA, Point
from gatewatch.collector.store.columns import labels
from gatewatch.jobs.frames import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from gatewatch.collector.store.history import History
    from gatewatch.collector.store.selection import SeriesKey

_TAGS: Final = ("run", "phase", LOOK, "layer", "gate", "param", "statistic", "group", "detector", "rule", "job")
"""Gatewatch's own tags, in the order of their columns; a user's own follow by name."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: in the table, by the rule of `Store.read`.
        source: name of the tag or of the field; empty for the time.
        kind: float, int, bool or str; of the time int: nanoseconds since the Unix epoch.
        is_tag: whether it holds a tag.
    """

    name: str
    source: str
    kind: type
    is_tag: bool = False

    def values(self, points: Sequence[Point]) -> list[object]:
        """Return the value of each point; None where it has none, or one of another type."""
        if not self.source:
            return [point.time for point in points]
        if self.is_tag:
            return [point.tags.get(self.source) or None for point in points]
        values = [point.fields.get(self.source) for point in points]
        if self.kind is float:  # a server may give floats without a fraction as integers
            return [float(value) if type(value) in (float, int) else None for value in values]  # type: ignore[arg-type]
        return [value if type(value) is self.kind else None for value in values]


@dataclass(frozen=True, slots=True)
class Table:
    """The points of a measurement; those of a reference look are a table of their own, see `Store.read`.

    Attributes:
        name: the measurement's; it ends in `_reference` for the points of a reference look.
        measurement: of the points.
        of_reference: whether it holds the points of a reference look.
        columns: the time, the tags, then the fields.
    """

    name: str
    measurement: str
    of_reference: bool
    columns: Sequence[Column]

    def rows(self, history: History, run: str) -> Iterator[list[Point]]:
        """Yield the points of the table in lists, series after series, each ordered by time."""
        for points in history.points(self.measurement, run):
            if points and _of_reference(self.measurement, points[0].tags) == self.of_reference:
                yield points


def measurements_of(history: History, run: str) -> list[str]:
    """Return the measurements that a run has points of: those of the schema in its order, then the user's own."""
    measurements = [name for name in history.measurements() if run in history.runs(name)]
    return sorted(measurements, key=lambda name: rank(name, [*SCHEMA]))


def tables_of(history: History, run: str, measurement: str) -> list[Table]:
    """Return the tables of a measurement of a run; none where it has no points. It reads the points once."""
    parts: dict[bool, dict[SeriesKey, Mapping[str, int]]] = {}
    for series, counts in history.counts(measurement, run).items():
        if counts:
            parts.setdefault(_of_reference(measurement, dict(series)), {})[series] = counts
    types = history.types(measurement)
    return [
        Table(f"{measurement}_reference" if reference else measurement, measurement, reference, columns)
        for reference, counts in sorted(parts.items(), key=lambda part: part[0])
        for columns in [_columns(measurement, counts, types)]
    ]


def _of_reference(measurement: str, tags: Mapping[str, str]) -> bool:
    return measurement in LOOKED_AT and bool(tags.get(LOOK))


def _columns(measurement: str, counts: Mapping[SeriesKey, Collection[str]], types: Mapping[str, type]) -> list[Column]:
    tags = sorted({name for series in counts for name, _ in series}, key=lambda name: rank(name, _TAGS))
    fields = sorted({name for of_series in counts.values() for name in of_series}, key=_field_order(measurement))
    of_tags, of_fields = labels(tags, fields)
    return [
        Column("time", "", int),
        *(Column(of_tags[name], name, str, is_tag=True) for name in tags),
        *(Column(of_fields[name], name, types[name]) for name in fields),
    ]


def _field_order(measurement: str) -> Callable[[str], tuple[int, str]]:
    """Return a key to sort fields by: the order of the schema, in a family by name; then all others by name."""
    rows = SCHEMA.get(measurement, ())

    def key(field: str) -> tuple[int, str]:
        return next((i for i, row in enumerate(rows) if fnmatchcase(field, row.name)), len(rows)), field

    return key
