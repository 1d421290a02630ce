"""What InfluxDB answers to a Flux query: annotated CSV in, rows out, as it arrives. Pure."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from gatewatch.collector.errors import GatewatchError
from gatewatch.collector.schema import MAX_TEXT_BYTES

Cell = str | bool | int | float | None
_PLAIN: Final = ("", "result", "table")
"""The columns that CSV adds to those of a table; the first has no name."""
_RESULT: Final = "_result"
"""The name of a result that a query gives no name."""
_READERS: Final[Mapping[str, Callable[[str], Cell]]] = MappingProxyType(
    {"long": int, "unsignedLong": int, "double": float, "boolean": lambda text: text == "true"}
)


class Row(NamedTuple):
    """One row, and the names of its columns, which are the same object for the rows of like tables."""

    columns: tuple[str, ...]
    cells: tuple[Cell, ...]


class QueryFailed(GatewatchError):  # noqa: N818 - named like the other errors
    """The server began to answer and could not go on. Its text is the server's."""


def rows(pieces: Iterable[bytes]) -> Iterator[Row]:
    """The rows of an answer in annotated CSV with the annotations datatype and default.

    A time stays text, in RFC 3339. Where a result has a name, the column `result` is its first. Text that is empty
    and text that is missing look alike in CSV: both are empty here.

    Raises:
        QueryFailed: the answer ends in an error.
        ValueError: it is no annotated CSV.
    """
    csv.field_size_limit(4 * MAX_TEXT_BYTES)  # a configuration may be a long text, with its quotes doubled
    types: list[str] = []
    defaults: list[str] = []
    columns: tuple[str, ...] | None = None
    shown: list[int] = []
    failed = False
    for cells in _records(pieces):
        if not cells:
            continue
        if cells[0].startswith("#"):
            if columns is not None:
                columns, types, defaults = None, [], []
            if cells[0] == "#datatype":
                types = cells
            elif cells[0] == "#default":
                defaults = cells
        elif columns is None:
            failed = cells[1:3] == ["error", "reference"]
            columns, shown = _columns(cells, cells if failed else types, defaults)
        elif failed:
            raise QueryFailed(cells[1])
        elif len(cells) != len(types):
            raise ValueError("a line has more or fewer cells than its header")
        else:
            yield Row(columns, tuple(_cell(types[i], cells[i] or (defaults[i] if defaults else "")) for i in shown))


def _columns(header: list[str], types: list[str], defaults: list[str]) -> tuple[tuple[str, ...], list[int]]:
    if len(header) != len(types) or (defaults and len(defaults) != len(types)):
        raise ValueError("a header has more or fewer cells than its annotations")
    shown = [i for i, name in enumerate(header) if name not in _PLAIN or (name == "result" and _named(i, defaults))]
    return tuple(header[i] for i in shown), shown


def _named(i: int, defaults: list[str]) -> bool:
    return bool(defaults) and defaults[i] != _RESULT


def _cell(kind: str, text: str) -> Cell:
    if kind in _READERS:
        return _READERS[kind](text) if text else None
    return text.replace("\r\n", "\n")  # which is how the server writes a line's end within a cell


def _records(pieces: Iterable[bytes]) -> Iterator[list[str]]:
    try:
        yield from csv.reader(_lines(pieces), strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    decoder, rest = codecs.getincrementaldecoder("utf-8")(), ""
    for piece in pieces:
        *lines, rest = (rest + decoder.decode(piece)).split("\n")
        for line in lines:
            yield f"{line}\n"
    if rest := rest + decoder.decode(b"", final=True):
        yield rest
