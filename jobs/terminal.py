"""What a person reads in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def printable(cell: object) -> str:
    """A cell as text that cannot speak to the terminal; a float with two digits."""
    text = f"{cell:.2f}" if isinstance(cell, float) else str(cell)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], shown: Callable[[object], str] = printable) -> str:
    """Columns aligned for a terminal: numbers to the right, control characters shown as escapes.

    Args:
        header: the columns' names.
        rows: a cell of each.
        shown: what a cell looks like.
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
