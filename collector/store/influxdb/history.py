"""All that an InfluxDB bucket holds, see `history`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatewatch.collector.schema import FieldValue, Point
from gatewatch.collector.store.history import Values
from gatewatch.collector.store.influxdb.influxql import Part, all_types, identifier, select, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gatewatch.collector.times import Time


class InfluxHistory:
    """Read what the bucket holds at each moment: a server keeps no snapshot for a long read.

    A field that has floats in some shards and integers in others comes as floats, as InfluxDB gives it.

    Args:
        query: gives the series of the answer to a statement of InfluxQL and the values bound in it.
    """

    def __init__(self, query: Callable[[str, Mapping[str, str] | None], Iterator[Part]]) -> None:
        self._query = query

    def measurements(self) -> list[str]:
        """See `History.measurements`."""
        # SHOW MEASUREMENTS gives none, and no error, for a token that may not read.
        return list(dict.fromkeys(part["name"] for part in self._query("SHOW FIELD KEYS", None)))

    def runs(self, measurement: str) -> list[str]:
        """See `History.runs`."""
        statement = f'SHOW TAG VALUES FROM {identifier(measurement)} WITH KEY = "run"'
        return [*(run for part in self._query(statement, None) for _, run in part["values"]), ""]

    def points(
        self,
        measurement: str,
        run: str,
        *,
        start: Time | None = None,
        stop: Time | None = None,
        series: Mapping[str, str] | None = None,
    ) -> Iterator[list[Point]]:
        """See `History.points`."""
        fields = self._fields(measurement)
        if fields:
            clause, values = self._where(measurement, run, start, stop, series)
            names = [name for name, _ in fields]
            for part in self._query(select(measurement, fields, clause), values):
                yield _points(measurement, part, names)

    def counts(
        self,
        measurement: str,
        run: str,
        *,
        start: Time | None = None,
        stop: Time | None = None,
        series: Mapping[str, str] | None = None,
    ) -> list[Values]:
        """See `History.counts`."""
        fields = self._fields(measurement)
        if not fields:
            return []
        clause, values = self._where(measurement, run, start, stop, series)
        found = []
        for part in self._query(select(measurement, fields, clause, "COUNT"), values):
            counted: dict[str, int] = {}
            for (name, _), number in zip(fields, part["values"][0][1:], strict=True):
                if number:
                    counted[name] = counted.get(name, 0) + number
            found.append(Values(_tags(part), counted))
        return found

    def close(self) -> None:
        """See `History.close`."""

    def _fields(self, measurement: str) -> list[tuple[str, type]]:
        return all_types(self._query(f"SHOW FIELD KEYS FROM {identifier(measurement)}", None))

    def _where(
        self,
        measurement: str,
        run: str,
        start: Time | None,
        stop: Time | None,
        series: Mapping[str, str] | None,
    ) -> tuple[str, dict[str, str]]:
        if series is None:
            return where(run, start, stop, None)
        keys = self._query(f"SHOW TAG KEYS FROM {identifier(measurement)}", None)
        absent = {key: "" for part in keys for (key,) in part["values"]}
        return where(run, start, stop, {**absent, **series})


def _points(measurement: str, part: Part, names: Sequence[str]) -> list[Point]:
    tags = _tags(part)
    points = []
    for time, *row in part["values"]:
        fields: dict[str, FieldValue] = {n: value for n, value in zip(names, row, strict=True) if value is not None}
        points.append(Point(measurement, tags, fields, time))
    return points


def _tags(part: Part) -> dict[str, str]:
    return {name: value for name, value in (part.get("tags") or {}).items() if value}
