"""A table as CSV: UTF-8, a header, times in RFC 3339 with nanoseconds, an empty cell for no value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from gatewatch.jobs.text import without_formula

if TYPE_CHECKING:
    from gatewatch.collector.schema import Point
    from gatewatch.jobs.exporting.tables import Column

_QUOTED: Final = re.compile('[",\r\n]')
"""What must be in quotes. The module csv leaves a carriage return without them, and pandas ends a row there."""


def text_cell(text: str) -> str:
    """Return a text as a cell, with an apostrophe before it where a spreadsheet would run it as a formula."""
    shown = without_formula(text)
    if shown and not _QUOTED.search(shown):
        return shown
    doubled = shown.replace('"', '""')
    return f'"{doubled}"'


class CsvFile:
    """Writes the rows of a table.

    Args:
        file: is written from where it is, and stays open.
        columns: of the table.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        self._file = file
        self._columns = columns
        self._write_rows([[text_cell(column.name)] for column in columns])

    def write(self, points: Sequence[Point]) -> None:
        """Write a row for each point."""
        self._write_rows([_cells(column, points) for column in self._columns])

    def close(self) -> None:
        """Do nothing: all is written already."""

    def abandon(self) -> None:
        """Write nothing more."""

    def _write_rows(self, columns: Sequence[Sequence[str]]) -> None:
        self._file.writelines(f"{','.join(row)}\n".encode() for row in zip(*columns, strict=True))


def _cells(column: Column, points: Sequence[Point]) -> list[str]:
    values = column.values(points)
    if not column.source:
        moments = np.datetime_as_string(np.array(values, dtype="M8[ns]"), unit="ns")
        return [f"{moment}Z" for moment in moments]
    if column.kind is str:
        return ["" if value is None else text_cell(str(value)) for value in values]
    if column.kind is bool:
        return ["" if value is None else str(value).lower() for value in values]
    return ["" if value is None else repr(value) for value in values]
