"""`gatewatch query`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice

from gatewatch.collector import store
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import checked_path, read_small_file
from gatewatch.jobs.commands.common import print_list, require_existing
from gatewatch.jobs.console import write_data
from gatewatch.jobs.queries import client, flux_values, named_query, output
from gatewatch.jobs.queries.answers import ANSWERS, answer
from gatewatch.jobs.queries.client import Row
from gatewatch.jobs.queries.flux_values import Value
from gatewatch.jobs.queries.named_query import Query
from gatewatch.jobs.text import printable


def run(arguments: argparse.Namespace) -> None:
    """Run a query and print its answer, or list the queries."""
    if arguments.flux is not None:
        if arguments.name is not None or arguments.show:
            raise ConfigError("--flux is for a query of your own: give it without NAME and --show")
        _own(arguments)
    elif arguments.name is not None:
        _named(arguments, named_query.named(arguments.name))
    elif arguments.param or arguments.show or arguments.limit:
        raise ConfigError("which query? give its NAME; `gatewatch query` alone lists them")
    else:
        _list(arguments)


def _list(arguments: argparse.Namespace) -> None:
    queries = named_query.queries().values()
    columns = ("query", "answers", "--param")
    rows = [(query.name, query.title, named_query.signature(query.parameters)) for query in queries]
    if arguments.csv:
        write_data(output.as_csv(dict(zip(columns, row, strict=True)) for row in rows))
    else:
        print_list(arguments, [_described(query) for query in queries], columns, rows)


def _described(query: Query) -> dict[str, object]:
    described = [
        {"name": p.name, "type": p.kind, "required": p.required, "default": p.default, "help": p.help}
        for p in query.parameters
    ]
    return {"name": query.name, "title": query.title, "about": query.about, "parameters": described}


def _named(arguments: argparse.Namespace, query: Query) -> None:
    texts = flux_values.parse_items(arguments.param)
    if arguments.show and any(p.required and p.name not in texts for p in query.parameters):
        print(query.text, end="")
        return
    opened, source = store.open_store(arguments.store), f"query {query.name!r}"
    if opened.influxdb is None and query.name in ANSWERS and not arguments.show:
        require_existing(opened)
        values = query.values(texts, "")
        del values[named_query.BUCKET]
        rows = iter(answer(query, opened, values, time.time_ns()))
    else:
        influxdb = client.influxdb(opened)
        values = query.values(texts, influxdb.bucket_name())
        if arguments.show:
            print(query.filled(values))
            return
        rows = client.ask(influxdb, query.text, values, source=source, timeout=arguments.timeout)
    explained = output.with_explanations(rows, query.words) if query.words else rows
    _print(arguments, output.in_order(explained, query.columns), source, values)


def _own(arguments: argparse.Namespace) -> None:
    values = flux_values.parse_typed_items(arguments.param)
    source, text = _read(arguments.flux)
    influxdb = client.influxdb(store.open_store(arguments.store))
    if not named_query.assigns(text, named_query.BUCKET):  # which InfluxDB would refuse to do twice
        values = {named_query.BUCKET: influxdb.bucket_name(), **values}
    _print(arguments, client.ask(influxdb, text, values, source=source, timeout=arguments.timeout), source, values)


def _read(file: str) -> tuple[str, str]:
    """Return what errors call a query of the user's own, and its text."""
    if not file:
        raise ConfigError("--flux: name a file that holds a Flux query, or - for the standard input")
    source = "standard input" if file == "-" else file
    try:
        text = sys.stdin.buffer.read() if file == "-" else read_small_file(checked_path(file, "--flux"), pipes=True)
        if text.strip():
            return printable(source), text.decode("utf-8-sig")
        what = "it is empty"
    except (OSError, UnicodeDecodeError) as error:
        what = str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8"
    raise ConfigError(f"--flux {printable(source)}: {what}; give a file that holds a Flux query") from None


def _print(arguments: argparse.Namespace, rows: Iterator[Row], source: str, values: Mapping[str, Value]) -> None:
    """Print the rows as they come."""
    shown = islice(rows, arguments.limit)
    if arguments.json:
        write_data(output.as_json(shown))
    elif arguments.csv:
        write_data(output.as_csv(shown, printable if sys.stdout.isatty() else str))
    elif not sum(sys.stdout.write(piece) for piece in output.as_table(shown)):
        given = ", ".join(f"{name}={flux_values.literal(value)}" for name, value in values.items()) or "nothing"
        print(f"{source} finds nothing, given {printable(given)}")
    sys.stdout.flush()  # so that a pipe that was closed is noticed here
    if next(rows, None) is not None:
        first = "row is" if arguments.limit == 1 else f"{arguments.limit:,} rows are"
        print(f"only the first {first} shown: there are more, see --limit", file=sys.stderr)
