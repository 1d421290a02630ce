"""Rows of the answer to a Flux query, with values of Python. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from gatewatch.collector.store.influxdb.annotated_csv import Column, Header, annotated_rows

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


def rows(pieces: Iterable[bytes]) -> Iterator[Row]:
    """Yield the rows of an answer in annotated CSV, as they arrive.

    A time stays text, in RFC 3339. Where a result has a name, the column `result` is its first. Text that is empty
    and text that is missing look alike in CSV: both are empty here.

    Raises:
        QueryFailed: the answer ends in an error.
        ValueError: it is no annotated CSV.
    """
    last: Header | None = None
    shown: list[tuple[int, Column]] = []
    names: tuple[str, ...] = ()
    for header, cells in annotated_rows(pieces):
        if header is not last:
            last = header
            shown = [(i, column) for i, column in enumerate(header.columns) if _is_shown(column)]
            names = tuple(column.name for _, column in shown)
        yield Row(names, tuple(_value(column, cells[i] or column.default) for i, column in shown))


def _is_shown(column: Column) -> bool:
    return column.name not in _PLAIN or (column.name == "result" and column.default not in ("", _RESULT))


def _value(column: Column, text: str) -> Cell:
    if column.kind in _READERS:
        return _READERS[column.kind](text) if text else None
    return text.replace("\r\n", "\n")  # which is how the server writes a line's end within a cell
