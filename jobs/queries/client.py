"""Asking InfluxDB 2 a Flux query, and what its refusals mean to who asks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError, GatewatchError, WriteUnavailable
from gatewatch.collector.store.influxdb.http_errors import Refused, one_line
from gatewatch.jobs.queries.answer import QueryFailed, Row, rows
from gatewatch.jobs.queries.flux_values import Value, extern

if TYPE_CHECKING:
    from gatewatch.collector.store import Store
    from gatewatch.collector.store.influxdb.store import InfluxStore

_PLACED: Final = re.compile(r"error @(\d+):(\d+)-\d+:\d+: ")
_PREFIXES: Final = re.compile(r"(?:compilation failed|runtime error|error in building plan while starting program): ")
_UNSEEN: Final = re.compile(r"could not find bucket .*|bucket .* not found")


def influxdb(store: Store) -> InfluxStore:
    """The store, which must be an InfluxDB 2: no other knows Flux.

    Raises:
        ConfigError: it is none.
    """
    from gatewatch.collector.store.influxdb.store import InfluxStore  # noqa: PLC0415 - its client loads slowly, and `--help` needs none

    if not isinstance(store, InfluxStore):
        raise ConfigError(
            f"{store.url}: Flux needs InfluxDB 2: name one with --store http://host:8086, and bring the history there"
            f" with `gatewatch copy --from {store.url} --to http://host:8086`"
        )
    return store


def ask(
    store: InfluxStore, query: str, values: Mapping[str, Value], *, source: str, timeout: float | None = None
) -> Iterator[Row]:
    """The rows that a query gives, as they arrive.

    Args:
        store: whose server is asked.
        query: its text.
        values: what it is given, by name.
        source: what errors call the query, such as its file.
        timeout: seconds to wait for more.

    Raises:
        ConfigError: the query is wrong, with its place; or the token may not read.
        GatewatchError: it failed while it ran.
        WriteUnavailable: the server does not answer.
    """
    try:
        yield from rows(store.flux(query, extern(values), timeout=timeout))
    except Refused as refused:
        raise _meaning(refused, store, source) from None
    except QueryFailed as failed:
        raise GatewatchError(placed(source, str(failed))) from None
    except ValueError as problem:
        raise WriteUnavailable(f"{store.url}: the answer is not InfluxDB's ({problem}); see the address") from None


def placed(source: str, message: str) -> str:
    """The server's message about a query in one line, which begins with the place in it, if it tells one.

    Of several errors it is the first, and how many follow.
    """
    places = list(_PLACED.finditer(message))
    if not places:
        return f"{source}: {one_line(_PREFIXES.sub('', message))}"
    first, *others = places
    text = message[first.end() : others[0].start() if others else len(message)]
    more = f" (and {len(others)} more)" if others else ""
    return f"{source}:{first[1]}:{first[2]}: {one_line(text)}{more}"


def _meaning(refused: Refused, store: InfluxStore, source: str) -> GatewatchError:
    if unseen := _UNSEEN.search(refused.reason):
        return ConfigError(
            f"{store.url}: {unseen[0]}: it is missing, or the token may not read it; see INFLUXDB_V2_BUCKET and"
            " INFLUXDB_V2_TOKEN"
        )
    if "empty range" in refused.reason:
        return ConfigError(f"{placed(source, refused.reason)}: `start` must be before `stop`")
    if "organization" in refused.reason and "not found" in refused.reason:
        org = store.destination["org"]
        return ConfigError(f"{store.url}: no organisation {org!r} that the token may see; see INFLUXDB_V2_ORG")
    if refused.status in (401, 403, 404):
        return ConfigError(str(refused))
    if refused.points:
        return ConfigError(placed(source, refused.reason))
    if _PLACED.search(refused.reason):
        return GatewatchError(placed(source, refused.reason))
    return refused.unavailable()
