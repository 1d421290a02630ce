"""All that an InfluxDB bucket holds, see `base.History`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gatewatch.collector.schema import FieldValue, Point
from gatewatch.collector.store.history import History
from gatewatch.collector.store.influxdb.influxql import Part, all_types, field_keys, field_types, identifier, select
from gatewatch.collector.store.selection import Selection, SeriesKey, series_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gatewatch.collector.store.influxdb.client import Client

    Fields = list[tuple[str, type]]


class InfluxHistory(History):
    """Read what the bucket holds at each moment: a server keeps no snapshot for a long read.

    A field that has floats in some shards and integers in others comes as floats, as InfluxDB gives it.

    Args:
        client: of the bucket.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._query = client.influxql

    def measurements(self) -> list[str]:
        """See `History.measurements`."""
        # SHOW MEASUREMENTS gives none, and no error, for a token that may not read.
        with self._client.understood():
            return list(dict.fromkeys(part["name"] for part in self._query("SHOW FIELD KEYS")))

    def runs(self, measurement: str | None = None) -> list[str]:
        """See `History.runs`."""
        of = "" if measurement is None else f"FROM {identifier(measurement)} "
        with self._client.understood():
            parts = self._query(f'SHOW TAG VALUES {of}WITH KEY = "run"')
            return [*dict.fromkeys(run for part in parts for _, run in part["values"]), ""]

    def types(self, measurement: str) -> Mapping[str, type]:
        """See `History.types`."""
        with self._client.understood():
            return field_types(self._query(field_keys(measurement)))

    def close(self) -> None:
        """See `History.close`."""

    def _points(self, selection: Selection) -> Iterator[list[Point]]:
        with self._client.understood():
            for fields, part in self._parts(selection):
                yield _points(selection.measurement, fields, part)

    def _counts(self, selection: Selection) -> Mapping[SeriesKey, Mapping[str, int]]:
        counts: dict[SeriesKey, Counter[str]] = {}
        with self._client.understood():
            for fields, part in self._parts(selection, "COUNT"):
                counted: Counter[str] = Counter()
                for (name, _), number in zip(fields, part["values"][0][1:], strict=True):
                    counted[name] += number or 0
                counts[series_of(part.get("tags") or {})] = +counted
        return counts

    def _parts(self, selection: Selection, function: str = "") -> Iterator[tuple[Fields, Part]]:
        """Yield the fields that were asked for, the same each time, and a part of the answer."""
        measurement = selection.measurement
        if fields := all_types(self._query(field_keys(measurement))):
            keys = self._query(f"SHOW TAG KEYS FROM {identifier(measurement)}") if selection.exactly else ()
            others = [key for part in keys for (key,) in part["values"]]
            for part in self._query(*select(selection, fields, others, function)):
                yield fields, part


def _points(measurement: str, fields: Fields, part: Part) -> list[Point]:
    tags, names = dict(series_of(part.get("tags") or {})), [name for name, _ in fields]
    points = []
    for time, *row in part["values"]:
        values: dict[str, FieldValue] = {n: value for n, value in zip(names, row, strict=True) if value is not None}
        points.append(Point(measurement, tags, values, time))
    return points
