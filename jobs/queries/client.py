"""Asks InfluxDB 2 a Flux query: rows with values of Python, and errors that name the place in the query."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError, GatewatchError, WriteUnavailable
from gatewatch.collector.store.influxdb.annotated_csv import Column, QueryFailed, annotated_rows
from gatewatch.collector.store.influxdb.http_errors import Refused
from gatewatch.collector.text import one_line
from gatewatch.jobs.queries.flux_values import Value, extern

if TYPE_CHECKING:
    from gatewatch.collector.store import Store
    from gatewatch.collector.store.influxdb.client import Client

Cell = str | bool | int | float | None
_PLAIN: Final = ("", "result", "table")
"""The columns that CSV adds to those of a table; the first has no name."""
_RESULT: Final = "_result"
"""The name of a result that a query gives no name."""
_READERS: Final[Mapping[str, Callable[[str], Cell]]] = MappingProxyType(
    {"long": int, "unsignedLong": int, "double": float, "boolean": lambda text: text == "true"}
)


Row = dict[str, Cell]
"""One row: name of each column, in order → the cell."""

_PLACED: Final = re.compile(r"error @(\d+):(\d+)-\d+:\d+: ")
_PREFIXES: Final = re.compile(r"(?:compilation failed|runtime error|error in building plan while starting program): ")
_UNSEEN: Final = re.compile(r"could not find bucket .*|bucket .* not found")


def influxdb(store: Store) -> Client:
    """Return the client of a store that is in InfluxDB 2: no other knows Flux.

    Raises:
        ConfigError: the store is none.
    """
    if store.influxdb is None:
        raise ConfigError(
            f"{store.url}: Flux needs InfluxDB 2: name one with --store http://host:8086, and bring the history there"
            f" with `gatewatch copy --from {store.url} --to http://host:8086`"
        )
    return store.influxdb


def ask(
    client: Client, query: str, values: Mapping[str, Value], *, source: str, timeout: float | None = None
) -> Iterator[Row]:
    """Yield the rows that a query gives, as they arrive.

    Args:
        client: of the server that is asked.
        query: text of the query.
        values: of its parameters, by name.
        source: what errors call the query, such as its file.
        timeout: seconds to wait for more rows; None: the client's.

    Raises:
        ConfigError: the query is wrong, with its place; or the token may not read.
        GatewatchError: it failed while it ran.
        WriteUnavailable: the server does not answer.
    """
    try:
        yield from rows(client.flux(query, extern(values), timeout))
    except Refused as refused:
        raise _error(refused, client, source) from None
    except QueryFailed as failed:
        raise GatewatchError(placed(source, str(failed))) from None
    except ValueError as problem:
        raise WriteUnavailable(f"{client.url}: the answer is not InfluxDB's ({problem}); see the address") from None


def rows(pieces: Iterable[bytes]) -> Iterator[Row]:
    """Yield the rows of an answer in annotated CSV, as they arrive.

    A time stays text, in RFC 3339. Where a result has a name, the column `result` is its first. Text that is empty
    and text that is missing look alike in CSV: both are empty here.

    Raises:
        QueryFailed: the answer ends in an error.
        ValueError: it is no annotated CSV.
    """
    for header, lines in groupby(annotated_rows(pieces), itemgetter(0)):
        shown = [(i, column) for i, column in enumerate(header.columns) if _is_shown(column)]
        for _, cells in lines:
            yield {column.name: _value(column, cells[i] or column.default) for i, column in shown}


def _is_shown(column: Column) -> bool:
    return column.name not in _PLAIN or (column.name == "result" and column.default not in ("", _RESULT))


def _value(column: Column, text: str) -> Cell:
    if column.kind in _READERS:
        return _READERS[column.kind](text) if text else None
    return text.replace("\r\n", "\n")  # which is how the server writes a line's end within a cell


def placed(source: str, message: str) -> str:
    """Return the server's message about a query in one line, which begins with the place in the query, if it has one.

    Of several errors it is the first, with the number of the others.
    """
    places = list(_PLACED.finditer(message))
    if not places:
        return f"{source}: {one_line(_PREFIXES.sub('', message), 300)}"
    first, *others = places
    text = message[first.end() : others[0].start() if others else len(message)]
    more = f" (and {len(others)} more)" if others else ""
    return f"{source}:{first[1]}:{first[2]}: {one_line(text, 300)}{more}"


def _error(refused: Refused, client: Client, source: str) -> GatewatchError:
    """Return the error that a refusal is to the user of a query."""
    names = client.names
    if unseen := _UNSEEN.search(refused.reason):
        return ConfigError(
            f"{client.url}: {unseen[0]}: it is missing, or the token may not read it; see {names.bucket} and"
            f" {names.token}"
        )
    if "empty range" in refused.reason:
        return ConfigError(f"{placed(source, refused.reason)}: `start` must be before `stop`")
    if "organization" in refused.reason and "not found" in refused.reason:
        return ConfigError(f"{client.url}: no organisation {client.org!r} that the token may see; see {names.org}")
    if refused.points:
        return ConfigError(placed(source, refused.reason))
    if _PLACED.search(refused.reason):
        return GatewatchError(placed(source, refused.reason))
    return refused.as_error()
