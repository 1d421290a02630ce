"""Points in InfluxDB 2: written as line protocol, read through its InfluxQL endpoint."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from gatewatch.collector.errors import ConfigError, GatewatchError, WriteRejected
from gatewatch.collector.line_protocol import encode, split_lines
from gatewatch.collector.schema import RUNS, SCHEMA, FieldValue, Point, point_problem
from gatewatch.collector.store.base import Store, Tally
from gatewatch.collector.store.influxdb import overview
from gatewatch.collector.store.influxdb.client import Client
from gatewatch.collector.store.influxdb.history import InfluxHistory
from gatewatch.collector.store.influxdb.http_errors import TRANSIENT, Names, Refused
from gatewatch.collector.store.influxdb.identify import other_server
from gatewatch.collector.store.influxdb.influxql import (
    blocks,
    field_keys,
    field_types,
    identifier,
    select,
    typed,
    where,
)
from gatewatch.collector.store.influxdb.named_lines import suspects, unparsed_lines
from gatewatch.collector.store.influxdb.settings import read_setting, read_token
from gatewatch.collector.store.runs import RunEvent
from gatewatch.collector.store.selection import Reduction, Selection, SeriesKey, bucket_width, series_of
from gatewatch.collector.store.series_shapes import Shapes
from gatewatch.collector.user_folders import BUCKET_ID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gatewatch.collector.store.frame import Block

BATCH: Final = 5_000
"""Lines a request: what InfluxDB's own documentation calls best."""
_SPANS: Final = 50
"""Spans of time that are summarised in one request."""
_RUN_FIELDS: Final = [(field.name, field.type) for field in SCHEMA[RUNS]]


def open_bucket(url: str, given: Mapping[str, str], names: Mapping[str, str]) -> InfluxStore:
    """Return the store in a bucket.

    Args:
        url: of the server.
        given: `org`, `bucket` and `token`, of which the environment says what is missing; the bucket's id, if known.
        names: what errors call them, where it is not their variables.

    Raises:
        ConfigError: a variable or the token's file is missing; names it.
    """
    client = Client(
        url,
        org=given.get("org") or read_setting("ORG"),
        bucket=given.get("bucket") or read_setting("BUCKET"),
        token=given.get("token") or read_token(),
        names=Names(**names),
    )
    return InfluxStore(client, given.get(BUCKET_ID))


class InfluxStore(Store):
    """A store in a bucket of InfluxDB 2, for any number of threads and processes.

    Args:
        client: of the bucket. Its token must be one that may write; to read, one that may read it too.
        bucket_id: of the bucket, where it is known already.
    """

    def __init__(self, client: Client, bucket_id: str | None = None) -> None:
        self.influxdb: Client = client
        self._bucket_id = bucket_id
        self.url = client.url
        self._shapes = Shapes()

    def __repr__(self) -> str:
        return f"InfluxStore({self.influxdb!r})"

    @property
    def destination(self) -> Mapping[str, str]:  # type: ignore[override]  # it is read only
        """See `Store.destination`."""
        client = self.influxdb
        named = {"url": client.url, "org": client.org, "bucket": client.bucket}
        known = client.bucket_id or self._bucket_id
        return {**named, BUCKET_ID: known} if known else named

    def resolve_destination(self) -> Mapping[str, str]:
        """See `Store.resolve_destination`."""
        with suppress(GatewatchError):
            self.influxdb.find_bucket()
        return self.destination

    def ping(self, seconds: float | None = None) -> None:
        """See `Store.ping`."""
        self.influxdb.ping(seconds)

    def check(self) -> None:
        """See `Store.check`. It writes no points, which is all that a token for writing alone may do."""
        problem = None
        try:
            self.influxdb.write(b"")
        except Refused as refused:
            if refused.status in TRANSIENT:
                raise refused.unavailable() from None
            problem = refused
        if other := other_server(self.influxdb, by_name=problem is None or problem.answered_by != "unknown"):
            raise ConfigError(f"{self.url}: {other} is there, which is not InfluxDB 2; see the address")
        if problem is not None:
            raise problem.unavailable() if problem.transient else ConfigError(str(problem))
        self.resolve_destination()

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

    def history(self) -> InfluxHistory:
        """See `Store.history`."""
        return InfluxHistory(self.influxdb)

    def close(self) -> None:
        """See `Store.close`."""
        self.influxdb.close()

    def _read(self, selection: Selection, fields: Sequence[str] | None) -> tuple[Mapping[str, type], Iterable[Block]]:
        with self.influxdb.understood():
            types = field_types(self.influxdb.influxql(field_keys(selection.measurement)))
        if fields is not None:
            types = {name: types[name] for name in dict.fromkeys(fields) if name in types}
        if not types:
            return {}, []
        with self.influxdb.understood():
            return types, list(blocks(self.influxdb.influxql(*select(selection, types.items())), types))

    def _count(self, selection: Selection, field: str) -> int:
        clause, values = where(selection)
        query = f"SELECT COUNT({identifier(field)}::field) FROM {identifier(selection.measurement)} {clause}"  # noqa: S608 - names are quoted, values bound
        with self.influxdb.understood():
            return sum(int(part["values"][0][1]) for part in self.influxdb.influxql(query, values))

    def _tallies(self, selection: Selection, field: str) -> list[Tally]:
        clause, values = where(selection)
        by = "*" if "run" in selection.tags else '"run"::tag'
        about = f"({identifier(field)}::field) FROM {identifier(selection.measurement)} {clause} GROUP BY {by}"
        counts: dict[str, dict[SeriesKey, tuple[int, int]]] = {"count": {}, "last": {}}
        with self.influxdb.understood():
            for part in self.influxdb.influxql(f"SELECT COUNT{about}; SELECT LAST{about}", values):
                time, value = part["values"][0]
                counts[part["columns"][1]][series_of(part.get("tags") or {})] = (time, value)
        newest = counts["last"]
        return [
            Tally(dict(series), points, newest[series][0])
            for series, (_, points) in counts["count"].items()
            if series in newest
        ]

    def _newest(self, selection: Selection) -> tuple[Mapping[str, type], Iterable[Block]]:
        with self.influxdb.understood():
            types = field_types(self.influxdb.influxql(field_keys(selection.measurement)))
            if not types:
                return {}, []
            return types, list(blocks(self.influxdb.influxql(*overview.newest(selection, types.items())), types))

    def _extremes(
        self, selection: Selection, field: str, buckets: int, width: int | None
    ) -> tuple[int, Iterable[Block]]:
        with self.influxdb.understood():
            kind = field_types(self.influxdb.influxql(field_keys(selection.measurement))).get(field)
            if kind not in (int, float):
                return width or 1, []
            ends = self.influxdb.influxql(*overview.ends(selection, (field, kind)))
            times = [part["values"][0][0] for part in ends]
            if not times:
                return width or 1, []
            first, last = min(times), max(times)
            width = width or bucket_width(first, last, buckets)
            query = overview.extremes(selection._replace(start=first, stop=last + 1), (field, kind), width)
            return width, list(overview.extreme_blocks(self.influxdb.influxql(*query)))

    def _summaries(
        self, selection: Selection, fields: Mapping[str, Reduction], edges: Sequence[int]
    ) -> tuple[Iterable[str], Iterable[Block]]:
        found: list[Block] = []
        with self.influxdb.understood():
            types = field_types(self.influxdb.influxql(field_keys(selection.measurement)))
            wanted = [(name, types[name], how) for name, how in fields.items() if types.get(name) in (int, float)]
            names = [name for name, _, _ in wanted]
            for i in range(0, len(edges) - 1 if wanted else 0, _SPANS):
                asked = overview.summaries(selection, wanted, edges[i : i + _SPANS + 1])
                found += overview.summary_blocks(self.influxdb.influxql(*asked), names)
        return names, found

    def _revisions(self, run: str | None) -> dict[str, str]:
        with self.influxdb.understood():
            return overview.revisions(self.influxdb.influxql(*overview.newest_of_runs(run)))

    def _run_events(self) -> tuple[Iterable[RunEvent], Iterable[RunEvent]]:
        # Without their types InfluxDB would give the tags of these names where no point has such a field.
        events = f"SELECT {typed(_RUN_FIELDS)} FROM {identifier(RUNS)}"  # noqa: S608 - constants
        by_phase = 'GROUP BY "run"::tag, "phase"::tag ORDER BY time'
        started = f"{events} WHERE \"event\"::string = 'started' {by_phase} LIMIT 1"
        last = f"{events} {by_phase} DESC LIMIT 1"
        with self.influxdb.understood():
            first_events, last_events = (
                [_run_event(part) for part in self.influxdb.influxql(query)] for query in (started, last)
            )
        return first_events, last_events

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
        """Find the wrong lines among those that were refused together: InfluxDB names some, or says how many at least.

        Writing the others again does no harm.
        """
        if unparsed := unparsed_lines(lines, refused.answer):
            rest = [line for line in lines if line not in unparsed]
            named = [(line, unparsed[line]) for line in lines if line in unparsed]
            return named + (self._send(_joined(rest)) if rest else [])
        if len(lines) in (1, refused.dropped):
            return [(line, refused.reason) for line in lines]
        meant = set(suspects(lines, refused.answer))
        if 0 < len(meant) < len(lines):
            those = [line for line in lines if line in meant]
            found = self._send(_joined([line for line in lines if line not in meant]))
            if not found and len(those) == refused.dropped:  # then they are all of these
                return [(line, refused.reason) for line in those]
            return found + self._send(_joined(those))
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
    fields: dict[str, FieldValue | None] = {name: v for (name, _), v in zip(_RUN_FIELDS, values, strict=True)}
    return RunEvent(part["tags"]["run"], part["tags"]["phase"], moment, fields)
