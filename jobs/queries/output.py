"""Rows as people and programs read them, a piece at a time: a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Final

from gatewatch.jobs.findings.explanations import in_words
from gatewatch.jobs.queries.client import Cell, Row
from gatewatch.jobs.text import number, printable, table, without_formula

BLOCK: Final = 1_000
"""Rows that are aligned with each other: a long table begins to be printed before its end is known."""
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?Z")


def as_table(rows: Iterable[Row]) -> Iterator[str]:
    """Yield tables for a terminal, of at most `BLOCK` rows; each has its own header."""
    for columns, group in groupby(rows, tuple):
        header = [printable(name) for name in columns]
        while block := list(islice(group, BLOCK)):
            cells = [["" if cell is None else cell for cell in row.values()] for row in block]
            yield f"{table(header, cells, _shown)}\n"


def as_csv(rows: Iterable[Row], shown: Callable[[str], str] = str) -> Iterator[str]:
    """Yield lines of CSV. Where the columns change there is an empty line and another header, as in Flux's own.

    Text in a cell that a spreadsheet would run as a formula gets an apostrophe.

    Args:
        rows: what to write.
        shown: what becomes of text: that on a terminal it does not speak to it.
    """
    between = ""
    for columns, group in groupby(rows, tuple):
        yield between + _csv_line([shown(name) for name in columns])
        between = "\n"
        for row in group:
            cells = row.values()
            yield _csv_line([without_formula(shown(c)) if isinstance(c, str) else _csv_cell(c) for c in cells])


def as_json(rows: Iterable[Row]) -> Iterator[str]:
    """Yield the pieces of a JSON list: an object a row. NaN and the infinities, which JSON lacks, are null."""
    between = "[\n  "
    for row in rows:
        lacking = {name: None for name, cell in row.items() if isinstance(cell, float) and not math.isfinite(cell)}
        yield between + json.dumps(row | lacking)
        between = ",\n  "
    yield "[]\n" if between.startswith("[") else "\n]\n"


def in_order(rows: Iterable[Row], columns: tuple[str, ...]) -> Iterator[Row]:
    """Yield the rows with these columns, whatever the order that the server sent them in."""
    return ({name: row.get(name) for name in columns} for row in rows)


def with_explanations(rows: Iterable[Row], prefix: str) -> Iterator[Row]:
    """Yield the rows with one more column, `why`: the causes of an anomaly in words, the largest first.

    Args:
        rows: some.
        prefix: of the columns that hold the causes: by how much a feature went up or down, if it is one.
    """
    for row in rows:
        causes = {
            name.removeprefix(prefix): by
            for name, by in row.items()
            if name.startswith(prefix) and isinstance(by, int | float)
        }
        yield {**row, "why": "; ".join(in_words(causes, str(row.get("gate") or "")))}


def _shown(cell: object) -> str:
    if isinstance(cell, bool):
        return _csv_cell(cell)
    if isinstance(cell, float):
        return "NaN" if math.isnan(cell) else number(cell)
    if isinstance(cell, str) and (match := _MOMENT.fullmatch(cell)):
        return f"{match[1]} {match[2]}{match[3] or ''}"
    return printable(cell)


def _csv_cell(cell: Cell) -> str:
    if cell is None:
        return ""
    return str(cell).lower() if isinstance(cell, bool) else str(cell)


def _csv_line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
