"""Text for people, in a terminal, a mail or a page: numbers, durations, lists, tables."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from gatewatch.collector.text import escape_controls

if TYPE_CHECKING:
    import numpy as np

_MARKUP: Final = {ord("&"): "&amp;", ord("<"): "&lt;", ord(">"): "&gt;", ord("%"): "&#37;", ord("$"): "&#36;"}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula, or skips before one."""
_SPACES = re.compile(r"\s+")


def number(value: object, digits: int = 3) -> str:
    """Return a number with `digits` significant digits and commas between thousands; an en dash for no number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    rounded = f"{value:.{digits}g}"
    return f"{value:,.0f}" if 10**digits <= abs(float(rounded)) < 1e15 else rounded  # which `g` writes with an exponent


def percent(share: object) -> str:
    """Return a share of 0 to 1 in percent, `<1 %` and `>99 %` near the ends; an en dash for no number."""
    if not isinstance(share, int | float) or not math.isfinite(share):
        return "–"
    return "<1 %" if 0 < share < 0.01 else ">99 %" if 0.99 < share < 1 else f"{share:.0%}".replace("%", " %")


def duration(seconds: float) -> str:
    """Return a time span in its two largest units: `3 d 4 h`, `2 min 5 s`, `0.4 s`; an en dash where it is negative."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, length)
        if amount or parts:
            parts.append(f"{amount} {unit}" if amount else "")
    return " ".join(part for part in parts[:2] if part)


def moment(value: np.datetime64) -> str:
    """Return a time to the minute, or to the second where it has seconds: `2026-05-28 14:30`; a day is a date."""
    value = value.astype("M8[us]")  # nanoseconds only keep bars of one time apart
    unit = next((unit for unit in ("D", "m") if value == value.astype(f"M8[{unit}]")), "s")
    return str(value.astype(f"M8[{unit}]")).replace("T", " ")


def join_words(parts: Sequence[str]) -> str:
    """Return a list as a sentence has it: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Return the first names and how many more there are: `a, b, c and 4 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def printable(value: object) -> str:
    """Return a value as text in which control characters are shown as escapes; a float has two decimals."""
    return escape_controls(f"{value:.2f}" if isinstance(value, float) else str(value))


def without_formula(text: str) -> str:
    """Return a text for a cell of CSV: with an apostrophe before it where a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def shorten(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters; a longer one is cut and ends in an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def plotly_text(name: object, limit: int = 60) -> str:
    """Return a name that Plotly draws as it is: without HTML, template fields (`%{…}`) and MathJax (`$…$`).

    Plotly renders some HTML in every text, and decodes entities after it has filled its templates, so entities are
    safe in both.

    Args:
        name: any text.
        limit: characters; a longer name is cut and ends in an ellipsis.
    """
    return shorten(printable(_SPACES.sub(" ", str(name))), limit).translate(_MARKUP)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], shown: Callable[[object], str] = printable) -> str:
    """Return aligned columns for a terminal; columns of numbers are aligned to the right.

    Args:
        header: the names of the columns.
        rows: a cell for each column.
        shown: makes a cell's text.
    """
    lines = [list(header), *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    numeric = [all(isinstance(row[i], int | float) or row[i] == "" for row in rows) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )
