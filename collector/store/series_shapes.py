"""Remembers the shapes of points that were checked, so that points like them need not be checked again."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import MAX_TEXT_BYTES, FieldValue, Point

_MOST: Final = 2**14
_LARGE: Final = 2**63


class Shapes:
    """Remembers a number for the shape of each point that passed its check: all of it but the values and the time.

    Most points differ in these alone from one before: then it is enough to check them.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], int] = {}

    def find(self, point: Point) -> int | None:
        """Return the number that was kept for such points; None for none, or where the point needs its own check."""
        try:
            number = self._numbers.get(_shape(point))
        except TypeError:  # a tag that is no text
            return None
        if number is None or not 2 - _LARGE <= point.time < _LARGE - 1:
            return None
        return number if all(map(_is_plain, point.fields.values())) else None

    def keep(self, point: Point, number: int = 0) -> None:
        """Remember a number for points like one that has passed its check."""
        if len(self._numbers) >= _MOST:
            self._numbers.clear()
        self._numbers[_shape(point)] = number

    def clear(self) -> None:
        """Forget everything."""
        self._numbers.clear()


def _is_plain(value: FieldValue) -> bool:
    if isinstance(value, str):
        return value.isascii() and len(value) <= MAX_TEXT_BYTES
    return -_LARGE <= value < _LARGE


def _shape(point: Point) -> tuple[object, ...]:
    tags, fields = point.tags, point.fields
    return (point.measurement, *tags, None, *tags.values(), *fields, *map(type, fields.values()))
