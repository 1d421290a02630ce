"""Remembers the shapes of points that were checked, so that points like them need not be checked again."""

from __future__ import annotations

from typing import Final

from gatewatch.collector.schema import MAX_TEXT_BYTES, FieldValue, Point

_MOST: Final = 2**14
_LARGE: Final = 2**63


class Shapes:
    """What was found of points that had nothing against them, by all of theirs but the values and the time.

    Most points differ in these alone from one before: then it is enough to look at them.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], int] = {}

    def find(self, point: Point) -> int | None:
        """What was found of such points; None where there were none, or the point itself needs a closer look."""
        try:
            found = self._found.get(_shape(point))
        except TypeError:  # a tag that is no text
            return None
        if found is None or not 2 - _LARGE <= point.time < _LARGE - 1:
            return None
        try:
            within = [-_LARGE <= value < _LARGE for value in point.fields.values()]  # type: ignore[operator]  # text raises
        except TypeError:
            within = [_is_plain(value) for value in point.fields.values()]
        return found if all(within) else None

    def keep(self, point: Point, found: int = 0) -> None:
        """Remember what was found of a point that has nothing against it."""
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[_shape(point)] = found

    def clear(self) -> None:
        """Forget everything."""
        self._found.clear()


def _is_plain(value: FieldValue) -> bool:
    if isinstance(value, str):
        return value.isascii() and len(value) <= MAX_TEXT_BYTES
    return -_LARGE <= value < _LARGE


def _shape(point: Point) -> tuple[object, ...]:
    tags, fields = point.tags, point.fields
    return (point.measurement, *tags, None, *tags.values(), *fields, *map(type, fields.values()))
