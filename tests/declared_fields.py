"""Holds every writer to the schema: a point made by any part of the product has only fields that a row declares."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import pytest

from gatewatch.collector.schema import SCHEMA, Field, Point

COPIERS = ("gatewatch.collector.store.", "gatewatch.collector.line_protocol.", "gatewatch.jobs.copying.")
"""Modules that read points back, whoever wrote them."""

_problems: list[str] = []
_schema: dict[str, tuple[Field, ...]] = dict(SCHEMA)
_found: dict[tuple[str, str], tuple[tuple[Field, ...], Field | None]] = {}
"""Measurement and field → the rows that were searched, and the one that declares it."""


def watch_points() -> None:
    """Look at each point as it is made. What is wrong is kept, since a guard beside a training swallows exceptions."""
    make = Point.__init__

    @functools.wraps(make)
    def checked(self: Point, *arguments: object, **options: object) -> None:
        make(self, *arguments, **options)
        maker = sys._getframe(1).f_globals.get("__name__", "")
        if maker.startswith("gatewatch.") and not maker.startswith(COPIERS) and (problem := undeclared(self, _schema)):
            _problems.append(f"{maker}: {problem}")

    Point.__init__ = checked  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def declared_fields() -> Iterator[dict[str, tuple[Field, ...]]]:
    """Fail the test that made a point with an undeclared field, or one of another type than is declared.

    Yields:
        Measurement → its fields, to which a test may add a row of its own.
    """
    yield _schema
    _schema.update(SCHEMA)
    assert not take_problems()


def take_problems() -> list[str]:
    """Return what was wrong since the last call, each once."""
    problems = list(dict.fromkeys(_problems))
    _problems.clear()
    return problems


def undeclared(point: Point, schema: Mapping[str, tuple[Field, ...]] = SCHEMA) -> str | None:
    """Return a message about the first field of a point that is undeclared or of another type, or None.

    Args:
        point: that a part of Gatewatch has made.
        schema: measurement → its fields.
    """
    rows = schema.get(point.measurement)
    if rows is None:
        return f"no row declares the measurement {point.measurement!r}"
    for name, value in point.fields.items():
        row = _row(point.measurement, rows, name)
        if row is None:
            return f"no row of {point.measurement} declares the field {name!r}"
        if type(value) is not row.type:
            return f"{point.measurement}.{name} is declared as {row.type.__name__}, not as {type(value).__name__}"
    return None


def _row(measurement: str, rows: tuple[Field, ...], name: str) -> Field | None:
    found = _found.get((measurement, name))
    if found is None or found[0] is not rows:
        found = rows, next((row for row in rows if fnmatchcase(name, row.name)), None)
        _found[measurement, name] = found
    return found[1]
