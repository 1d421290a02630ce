"""Points as InfluxDB's line protocol: points in, bytes out.

Python writes a float slowly and orjson writes it fast, so all numbers of a slice of points go through one call of
orjson and one `%` into templates that are kept by layout. What orjson writes otherwise than Python is mended on the
bytes. Whatever is not a plain number takes the plain way, `_line`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import orjson

from gatewatch.collector.schema import FieldValue, Point, point_problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_Identity = tuple[str | None, ...]
"""Measurement, tag names, None, tag values and field names, in the order of the point: flat, since it is made anew for
each point."""
_Layout = tuple[bytes, tuple[type, ...], "itemgetter[object] | None"]
"""A line with `%b` for each number; their types, by name and the time's last, none where there are others than numbers;
what takes the fields by name, where they come in another order."""

_SLICE: Final = 32
"""Points formatted at once: measured; the tokens of more no longer fit the processor's cache."""
_MOST_LAYOUTS: Final = 4096
_NUMBERS: Final = frozenset({float, int, bool})

_MEASUREMENT: Final = str.maketrans({",": r"\,", " ": r"\ "})
_KEY: Final = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_TEXT: Final = str.maketrans({'"': r"\"", "\\": r"\\"})

_ONE_DIGIT_EXPONENT: Final = re.compile(rb"e([+-]?)([0-9])(?![0-9])")
_UNSIGNED_EXPONENT: Final = re.compile(rb"e([0-9])")
_FIFTH_PLACE: Final = re.compile(rb"(?<![0-9])0\.0000([1-9])([0-9]*)")

_layouts: dict[_Identity, _Layout] = {}


def encode(points: Iterable[Point]) -> bytes:
    r"""The points as line protocol, one line each, every line ending in `\n`; no bytes for no points.

    Times are nanoseconds. Tags and fields are sorted by name, tags without a value are left out. Each line is byte for
    byte what influxdb-client's `Point.to_line_protocol` gives.

    Args:
        points: such as `schema.point_problem` has nothing against. Filter first: of others some fail here, all
            points with them, and some give lines that InfluxDB refuses.

    Raises:
        ValueError: a point has no line (a float that is not finite, no fields, text that is none); the text is that
            of `point_problem`.
    """
    points = points if isinstance(points, list) else list(points)
    return b"".join([_encode_slice(points[i : i + _SLICE]) for i in range(0, len(points), _SLICE)])


def _encode_slice(points: Sequence[Point]) -> bytes:
    layouts = _layouts
    texts: list[bytes] = []
    types: list[type] = []
    numbers: list[object] = []
    for point in points:
        tags, fields = point.tags, point.fields
        key = (point.measurement, *tags, None, *tags.values(), *fields)
        try:
            text, kinds, in_order = layouts[key]
        except KeyError:
            text, kinds, in_order = _keep_layout(key, point)
        texts.append(text)
        types += kinds
        numbers += in_order(fields) if in_order else fields.values()
        numbers.append(point.time)
    if list(map(type, numbers)) == types:
        with suppress(TypeError):  # an integer beyond 64 bits
            written = orjson.dumps(numbers)[1:-1]
            if b"n" not in written:  # null: a float that is not finite
                return b"".join(texts) % tuple(_as_python_writes(written).split(b","))
    for point in points:  # where a type has changed, the next slice is right again
        layouts.pop((point.measurement, *point.tags, None, *point.tags.values(), *point.fields), None)
    return b"".join(map(_line, points))


def _as_python_writes(numbers: bytes) -> bytes:
    """JSON numbers, separated by commas, as `str` writes them, whole floats without their `.0`."""
    numbers = numbers.replace(b".0,", b",")
    if b"0.0000" in numbers:
        numbers = _FIFTH_PLACE.sub(lambda m: m[1] + (b"." + m[2] if m[2] else b"") + b"e-05", numbers)
    if b"e" in numbers:
        numbers = _ONE_DIGIT_EXPONENT.sub(rb"e\g<1>0\2", numbers)
        numbers = _UNSIGNED_EXPONENT.sub(rb"e+\1", numbers)
    return numbers


def _keep_layout(key: _Identity, point: Point) -> _Layout:
    fields = point.fields
    names = list(fields)
    ordered = sorted(names)
    kinds = [type(fields[name]) for name in ordered]
    columns = ",".join(
        [
            _key(name).replace("%", "%%") + ("=%bi" if kind is int else "=%b")
            for name, kind in zip(ordered, kinds, strict=True)
        ]
    )
    text = f"{_head(point.measurement, point.tags).replace('%', '%%')} {columns} %b\n".encode()
    if len(_layouts) >= _MOST_LAYOUTS:
        _layouts.clear()
    plain = names and _NUMBERS.issuperset(kinds)
    _layouts[key] = layout = (
        text,
        (*kinds, int) if plain else (),
        None if ordered == names else itemgetter(*ordered),
    )
    return layout


def _line(point: Point) -> bytes:
    if problem := point_problem(point):
        raise ValueError(problem)
    fields = ",".join([f"{_key(name)}={_value(value)}" for name, value in sorted(point.fields.items())])
    return f"{_head(point.measurement, point.tags)} {fields} {int(point.time)}\n".encode()


def _head(measurement: str, tags: Mapping[str, str]) -> str:
    pairs = "".join([f",{_key(name)}={_key(value)}" for name, value in sorted(tags.items()) if value])
    return measurement.translate(_MEASUREMENT) + pairs


def _key(name: str) -> str:
    return name.translate(_KEY)


def _value(value: FieldValue) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"{int(value)}i"
        case float():
            return repr(float(value)).removesuffix(".0")
        case _:
            return f'"{value.translate(_TEXT)}"'
