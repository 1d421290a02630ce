"""Points in InfluxDB 2: written as line protocol, read through its InfluxQL endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gatewatch.collector.errors import ConfigError, WriteRejected
from gatewatch.collector.line_protocol import encode, split_lines
from gatewatch.collector.schema import RUNS, FieldValue, Point, point_problem
from gatewatch.collector.store.frame import frame
from gatewatch.collector.store.influxdb.history import InfluxHistory
from gatewatch.collector.store.influxdb.http_errors import Refused
from gatewatch.collector.store.influxdb.influxql import blocks, field_types, identifier, select, where
from gatewatch.collector.store.protocol import Tally
from gatewatch.collector.store.runs import RunEvent, runs_frame
from gatewatch.collector.store.series_shapes import Shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from gatewatch.collector.store.influxdb.client import Client
    from gatewatch.collector.times import Time

BATCH: Final = 5_000
"""Lines a request: what InfluxDB's own documentation calls best."""
_RUN_FIELDS: Final[Mapping[str, str]] = {
    "event": "string",
    "step": "integer",
    "error": "string",
    "framework": "string",
    "model": "string",
    "config": "string",
}


class InfluxStore:
    """A store in a bucket of InfluxDB 2, for any number of threads and processes.

    Args:
        client: of the bucket. Its token must be one that may write; to read, one that may read it too.
    """

    path: Final = None
    """See `Store.path`."""

    def __init__(self, client: Client) -> None:
        self.influxdb = client
        self._shapes = Shapes()

    def __repr__(self) -> str:
        return f"InfluxStore({self.influxdb!r})"

    @property
    def url(self) -> str:
        """See `Store.url`."""
        return self.influxdb.url

    @property
    def destination(self) -> Mapping[str, str]:
        """See `Store.destination`."""
        return {"url": self.influxdb.url, "org": self.influxdb.org, "bucket": self.influxdb.bucket}

    def check(self) -> None:
        """See `Store.check`. It writes no points, which is all that a token for writing alone may do."""
        try:
            self.influxdb.write(b"")
        except Refused as refused:
            if refused.transient:
                raise refused.unavailable() from None
            raise ConfigError(str(refused)) from None

    def write(self, points: Iterable[Point]) -> None:
        """See `Store.write`."""
        problems: list[str] = []
        good: list[Point] = []
        for point in points:
            if self._shapes.find(point) is None:
                if problem := point_problem(point):
                    problems.append(problem)
                    continue
                self._shapes.keep(point)
            good.append(point)
        self._write((encode(good[i : i + BATCH]) for i in range(0, len(good), BATCH)), problems)

    def write_lines(self, lines: bytes) -> None:
        """See `Store.write_lines`. The bytes are sent as they are."""
        if lines.count(b"\n") <= BATCH:
            self._write([lines] if lines else [])
        else:
            each = split_lines(lines)
            self._write(_joined(each[i : i + BATCH]) for i in range(0, len(each), BATCH))

    def read(
        self,
        measurement: str,
        *,
        run: str | None = None,
        start: Time | None = None,
        stop: Time | None = None,
        tags: Mapping[str, str] | None = None,
        fields: Sequence[str] | None = None,
        prefix_tags: bool = False,
    ) -> pd.DataFrame:
        """See `Store.read`."""
        types = field_types(self.influxdb.influxql(f"SHOW FIELD KEYS FROM {identifier(measurement)}"))
        if fields is not None:
            types = {name: types[name] for name in dict.fromkeys(fields) if name in types}
        if not types:
            return frame([], {})
        clause, values = where(run, start, stop, tags)
        parts = self.influxdb.influxql(select(measurement, types.items(), clause), values)
        return frame(blocks(parts, types), types, prefix_tags)

    def count(
        self,
        measurement: str,
        field: str,
        *,
        run: str | None = None,
        start: Time | None = None,
        stop: Time | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> int:
        """See `Store.count`."""
        clause, values = where(run, start, stop, tags)
        query = f"SELECT COUNT({identifier(field)}::field) FROM {identifier(measurement)} {clause}"  # noqa: S608 - names are quoted, values bound
        return sum(part["values"][0][1] for part in self.influxdb.influxql(query, values))

    def tallies(self, measurement: str, field: str) -> dict[str, tuple[int, int]]:
        """See `Store.tallies`."""
        counts = self._tallied(measurement, field, 'GROUP BY "run"::tag')
        return {tally.tags["run"]: (tally.points, tally.newest) for tally in counts if tally.tags["run"]}

    def series(self, measurement: str, field: str, run: str) -> list[Tally]:
        """See `Store.series`."""
        clause, values = where(run, None, None, None)
        return self._tallied(measurement, field, f"{clause} GROUP BY *", values)

    def runs(self) -> pd.DataFrame:
        """See `Store.runs`."""
        # Without their types InfluxDB would give the tags of these names where no point has such a field.
        fields = ", ".join(f'"{name}"::{kind}' for name, kind in _RUN_FIELDS.items())
        select = f"SELECT {fields} FROM {identifier(RUNS)}"  # noqa: S608 - constants
        by_phase = 'GROUP BY "run"::tag, "phase"::tag ORDER BY time'
        started = f"{select} WHERE \"event\"::string = 'started' {by_phase} LIMIT 1"
        last = f"{select} {by_phase} DESC LIMIT 1"
        return runs_frame(
            map(_run_event, self.influxdb.influxql(started)), map(_run_event, self.influxdb.influxql(last))
        )

    def history(self) -> InfluxHistory:
        """See `Store.history`."""
        return InfluxHistory(self.influxdb.influxql)

    def close(self) -> None:
        """See `Store.close`."""
        self.influxdb.close()

    def _tallied(
        self, measurement: str, field: str, clause: str, values: Mapping[str, str] | None = None
    ) -> list[Tally]:
        about = f"({identifier(field)}::field) FROM {identifier(measurement)} {clause}"
        found: dict[str, dict[tuple[tuple[str, str], ...], tuple[int, int]]] = {"count": {}, "last": {}}
        for part in self.influxdb.influxql(f"SELECT COUNT{about}; SELECT LAST{about}", values):
            key = tuple(sorted((name, value) for name, value in part["tags"].items() if value or name == "run"))
            found[part["columns"][1]][key] = part["values"][0]
        newest = found["last"]
        return [
            Tally(dict(key), points, newest[key][0]) for key, (_, points) in found["count"].items() if key in newest
        ]

    def _write(self, batches: Iterable[bytes], problems: Sequence[str] = ()) -> None:
        """Write the batches.

        Raises:
            WriteRejected: lines were refused, or there were problems before.
            WriteUnavailable: see `Store.write`.
        """
        refused: list[tuple[bytes, str]] = []
        try:
            for batch in batches:
                refused += self._send(batch)
        except Refused as refusal:
            raise refusal.unavailable() from None
        if problems or refused:
            reasons = [*problems, *dict.fromkeys(reason for _, reason in refused)]
            raise WriteRejected(reasons, len(problems) + len(refused), refused)

    def _send(self, lines: bytes) -> list[tuple[bytes, str]]:
        """Write the lines; those that were refused, each with the reason."""
        try:
            self.influxdb.write(lines)
        except Refused as refused:
            if not refused.points:
                raise
            # What is of one measurement, or of one time, is often wrong alike: so it lies together and few requests
            # find it. The lines of one point keep their order, since the last wins.
            return self._isolate(sorted(split_lines(lines), key=_measurement_and_time), refused)
        return []

    def _isolate(self, lines: list[bytes], refused: Refused) -> list[tuple[bytes, str]]:
        """Find the wrong lines among those that were refused together: InfluxDB says how many at least, never which.

        Writing the others again does no harm.
        """
        if len(lines) in (1, refused.dropped):
            return [(line, refused.reason) for line in lines]
        half = len(lines) // 2
        found = self._send(_joined(lines[:half]))
        if refused.dropped and not found:  # then they are all in the other half
            return self._isolate(lines[half:], refused)
        return found + self._send(_joined(lines[half:]))


def _measurement_and_time(line: bytes) -> tuple[bytes, bytes]:
    return line.partition(b",")[0].partition(b" ")[0], line.rpartition(b" ")[2]


def _joined(lines: list[bytes]) -> bytes:
    return b"\n".join(lines) + b"\n"


def _run_event(part: Mapping[str, Any]) -> RunEvent:
    moment, *values = part["values"][0]
    fields: dict[str, FieldValue | None] = dict(zip(_RUN_FIELDS, values, strict=True))
    return RunEvent(part["tags"]["run"], part["tags"]["phase"], moment, fields)
