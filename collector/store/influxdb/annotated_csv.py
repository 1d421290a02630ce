"""Annotated CSV, in which InfluxDB answers Flux: rows as they arrive. Pure: bytes in, text and columns out."""

from __future__ import annotations

import codecs
import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from gatewatch.collector.errors import GatewatchError
from gatewatch.collector.schema import MAX_TEXT_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class QueryFailed(GatewatchError):  # noqa: N818 - named like the other errors
    """The server began to answer and could not go on. Its text is the server's."""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: of the column; empty for the first, which holds annotations.
        kind: type as InfluxDB names it, such as `double`, `long` or `dateTime:RFC3339`.
        grouped: whether it is part of the group key.
        default: text that an empty cell stands for.
    """

    name: str
    kind: str
    grouped: bool
    default: str


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """The columns of the rows that follow it; two headers are never equal."""

    columns: tuple[Column, ...]


def annotated_rows(pieces: Iterable[bytes]) -> Iterator[tuple[Header, list[str]]]:
    """Yield the header and the cells of each row.

    Args:
        pieces: of an answer with the annotation datatype; group and default may be there.

    Raises:
        QueryFailed: the answer ends in an error.
        ValueError: it is no annotated CSV.
    """
    csv.field_size_limit(4 * MAX_TEXT_BYTES)  # a configuration may be a long text, with its quotes doubled
    notes: dict[str, list[str]] = {}
    header: Header | None = None
    failed = False
    for cells in _records(pieces):
        if not cells:
            continue
        if cells[0].startswith("#"):
            if header is not None:
                header, notes = None, {}
            notes[cells[0]] = cells
        elif header is None:
            failed = cells[1:3] == ["error", "reference"]
            header = Header(() if failed else _columns(cells, notes))
        elif failed:
            raise QueryFailed(cells[1])
        elif len(cells) != len(header.columns):
            raise ValueError("a line has more or fewer cells than its header")
        else:
            yield header, cells


def _columns(names: list[str], notes: dict[str, list[str]]) -> tuple[Column, ...]:
    kinds, groups, defaults = (notes.get(f"#{name}") for name in ("datatype", "group", "default"))
    empty = [""] * len(names)
    try:
        each = zip(names, kinds or (), groups or empty, defaults or empty, strict=True)
        return tuple(Column(name, kind, group == "true", default) for name, kind, group, default in each)
    except ValueError:
        raise ValueError("a header has more or fewer cells than its annotations") from None


def _records(pieces: Iterable[bytes]) -> Iterator[list[str]]:
    try:
        yield from csv.reader(_lines(pieces), strict=True)
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    rest = ""
    for text in codecs.iterdecode(pieces, "utf-8"):
        *lines, rest = (rest + text).split("\n")
        yield from (f"{line}\n" for line in lines)
    if rest:
        yield rest
