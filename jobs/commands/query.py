"""`gatewatch query`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.commands.common import Commands, positive, print_json
from gatewatch.jobs.text import printable, table

if TYPE_CHECKING:
    from gatewatch.collector.store.influxdb.client import Client
    from gatewatch.jobs.queries.client import Row
    from gatewatch.jobs.queries.flux_values import Value
    from gatewatch.jobs.queries.named_query import Query

_READ_SECONDS: Final = 60


def add(commands: Commands[argparse.ArgumentParser], with_store: argparse.ArgumentParser) -> None:
    """Add the command."""
    query = commands.add_parser(
        "query",
        parents=[with_store],
        help="run a named query on InfluxDB, or one of your own in Flux",
        epilog="Without NAME and --flux it lists the named queries and their parameters; docs/flux.md explains each.",
    )
    query.add_argument("name", nargs="?", metavar="NAME", help="name of the query")
    query.add_argument(
        "--flux",
        metavar="FILE",
        help="run the query in this file, - for standard input; `bucket` in it is the store's bucket",
    )
    query.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the query; repeat it for more, and for each element of a list; with --flux,"
        " NAME:TYPE=VALUE where the type is not obvious",
    )
    query.add_argument(
        "--show",
        action="store_true",
        help="print the Flux with its parameters filled in, to paste it elsewhere; without them, the file of the query",
    )
    form = query.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
    query.add_argument("--limit", type=positive, metavar="ROWS", help="print at most this many rows (default: all)")
    query.add_argument(
        "--timeout",
        type=positive,
        default=_READ_SECONDS,
        metavar="SECONDS",
        help=f"how long to wait for the next rows (default: {_READ_SECONDS})",
    )
    query.set_defaults(run_command=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gatewatch.jobs.queries.named_query import named  # noqa: PLC0415 - `--help` needs none of it

    if arguments.flux is not None:
        if arguments.name is not None or arguments.show:
            raise ConfigError("--flux is for a query of your own: give it without NAME and --show")
        return _own(arguments)
    if arguments.name is not None:
        return _named(arguments, named(arguments.name))
    if arguments.param or arguments.show or arguments.limit:
        raise ConfigError("which query? give its NAME; `gatewatch query` alone lists them")
    return _list(arguments)


def _list(arguments: argparse.Namespace) -> int:
    from gatewatch.jobs.queries.named_query import queries, signature  # noqa: PLC0415 - as above
    from gatewatch.jobs.queries.output import as_csv  # noqa: PLC0415 - as above

    found = queries().values()
    if arguments.json:
        print_json([_described(query) for query in found])
        return 0
    columns, rows = ("query", "answers", "--param"), [(q.name, q.title, signature(q.parameters)) for q in found]
    if arguments.csv:
        print("".join(as_csv(dict(zip(columns, row, strict=True)) for row in rows)), end="")
    else:
        print(table(columns, rows))
    return 0


def _described(query: Query) -> dict[str, object]:
    parameters = [
        {"name": p.name, "type": p.kind, "required": p.required, "default": p.default, "help": p.help}
        for p in query.parameters
    ]
    return {"name": query.name, "title": query.title, "about": query.about, "parameters": parameters}


def _named(arguments: argparse.Namespace, query: Query) -> int:
    from gatewatch.jobs.queries.client import ask  # noqa: PLC0415 - as above
    from gatewatch.jobs.queries.flux_values import parse_items  # noqa: PLC0415 - as above
    from gatewatch.jobs.queries.output import in_order, with_explanations  # noqa: PLC0415 - as above

    texts = parse_items(arguments.param)
    if arguments.show and any(p.required and p.name not in texts for p in query.parameters):
        print(query.text, end="")
        return 0
    client = _influxdb(arguments)
    values = query.values(texts, client.bucket)
    if arguments.show:
        print(query.filled(values))
        return 0
    source = f"query {query.name!r}"
    rows = ask(client, query.text, values, source=source, timeout=arguments.timeout)
    explained = with_explanations(rows, query.words) if query.words else rows
    return _print(arguments, in_order(explained, query.columns), source, values)


def _own(arguments: argparse.Namespace) -> int:
    from gatewatch.jobs.queries.client import ask  # noqa: PLC0415 - as above
    from gatewatch.jobs.queries.flux_values import parse_typed_items  # noqa: PLC0415 - as above
    from gatewatch.jobs.queries.named_query import BUCKET, assigns  # noqa: PLC0415 - as above

    given = parse_typed_items(arguments.param)
    source, text = _read(arguments.flux)
    client = _influxdb(arguments)
    if not assigns(text, BUCKET):  # which InfluxDB would refuse to do twice
        given = {BUCKET: client.bucket, **given}
    return _print(arguments, ask(client, text, given, source=source, timeout=arguments.timeout), source, given)


def _influxdb(arguments: argparse.Namespace) -> Client:
    from gatewatch.collector.store import open_store  # noqa: PLC0415 - as above
    from gatewatch.jobs.queries.client import influxdb  # noqa: PLC0415 - as above

    return influxdb(open_store(arguments.store))


def _read(file: str) -> tuple[str, str]:
    """Return what errors call a query of the user's own, and its text."""
    if not file:
        raise ConfigError("--flux: name a file that holds a Flux query, or - for the standard input")
    source = "standard input" if file == "-" else file
    try:
        text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        if text.strip():
            return printable(source), text.decode("utf-8-sig")
        what = "it is empty"
    except (OSError, UnicodeDecodeError) as error:
        what = str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8"
    raise ConfigError(f"--flux {printable(source)}: {what}; give a file that holds a Flux query") from None


def _print(arguments: argparse.Namespace, rows: Iterator[Row], source: str, values: Mapping[str, Value]) -> int:
    """Print the rows as they come."""
    from gatewatch.jobs.queries.flux_values import literal  # noqa: PLC0415 - as above
    from gatewatch.jobs.queries.output import as_csv, as_json, as_table  # noqa: PLC0415 - as above

    shown = islice(rows, arguments.limit)
    if arguments.json:
        pieces = as_json(shown)
    elif arguments.csv:
        pieces = as_csv(shown, printable if sys.stdout.isatty() else str)
    else:
        pieces = as_table(shown)
    empty = True
    for piece in pieces:
        sys.stdout.write(piece)
        empty = False
    if empty and not arguments.csv:
        given = ", ".join(f"{name}={literal(value)}" for name, value in values.items()) or "nothing"
        print(f"{source} finds nothing, given {printable(given)}")
    sys.stdout.flush()  # so that a pipe that was closed is noticed here
    if next(rows, None) is not None:
        first = "row is" if arguments.limit == 1 else f"{arguments.limit:,} rows are"
        print(f"only the first {first} shown: there are more, see --limit", file=sys.stderr)
    return 0
