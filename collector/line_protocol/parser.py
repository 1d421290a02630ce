r"""Line protocol read back: bytes in, points out.

In what `line_protocol.encode` writes, a comma, an equals sign or a space of a name comes right after a backslash, and
one that separates never does; a quote opens text only right after the equals sign of a field, and only within text can
there be a newline.

The loops of the expressions are unrolled and possessive: many characters a step, and no way back.
"""

from __future__ import annotations

import math
import re
from typing import Final

from gatewatch.collector.schema import FieldValue, Point

_MOST_KEPT: Final = 4096

_COMMA: Final = re.compile(r"(?<!\\),")
_EQUALS: Final = re.compile(r"(?<!\\)=")
_BLANK: Final = re.compile(r"(?<!\\) ")
_ESCAPED: Final = re.compile(r"\\([,= ])")
_ESCAPED_TEXT: Final = re.compile(r'\\(["\\])')
_FLOAT: Final = r"[-+]?+[0-9]++(?:\.[0-9]++)?+(?:e[-+]?+[0-9]++)?+"
_FIELD: Final = re.compile(
    r"((?:[^\\,= \n]++|\\[,= ]?+)++)="
    rf'(?:({_FLOAT})(?=,|\Z)|"((?:[^"\\]++|\\["\\])*+)"|([^," ]++))(,|\Z)'
)
"""The name of a field, its value as a number, as text or as something else, and what follows."""
_NUMBER: Final = rf"""[^\\,= "\n]++=(?:-?+[0-9]{{1,20}}+i|{_FLOAT})"""
_NUMBERS: Final = re.compile(rf"{_NUMBER}(?:,{_NUMBER})*+")
"""Fields of nothing but numbers, under names without escapes, as most lines have them."""
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_LINE: Final = re.compile(
    rb'(?:\\ |[^ \n])++ (?:(?:\\[,= ]|[^,= \n])++=(?:"(?:[^"\\]|\\["\\])*+"|[^," \n]++),?+)++ [^ "\n]++(?=\n|\Z)'
)

_series: dict[bytes, tuple[str, dict[str, str]]] = {}


def split_lines(lines: bytes) -> list[bytes]:
    """Return the lines, without the newlines that end them; within the text of a sound line a newline ends none."""
    split: list[bytes] = []
    begin = 0
    while begin < len(lines):
        end = lines.find(b"\n", begin)
        end = len(lines) if end < 0 else end
        if lines.find(b'"', begin, end) >= 0 and (whole := _LINE.match(lines, begin)):
            end = whole.end()
        split.append(lines[begin:end])
        begin = end + 1
    return split


def parse(line: bytes) -> Point:
    """Return the point of one line, which comes without the newline that ends it.

    Tags and fields come sorted by name, and tags without a value are gone. Only the grammar is looked at: whether a
    store can hold a point is for `schema.point_problem` to say.

    Raises:
        ValueError: says what is wrong with the line.
    """
    try:
        head, *rest = _BLANK.split(line.decode(), maxsplit=1)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    columns, blank, time = rest[0].rpartition(" ") if rest else ("", "", "")
    if not blank:
        raise ValueError("it has not the three parts: series, fields, time")
    if not _INTEGER.fullmatch(time):
        raise ValueError(f"its time {time[:40]!r} is no integer")
    fields = _numbers(columns) or _fields(columns)
    measurement, tags = _series.get(head.encode()) or _keep_series(head.encode())
    return Point(measurement, tags.copy(), fields, int(time))


def _numbers(columns: str) -> dict[str, FieldValue] | None:
    """Return fields of nothing but numbers, in half the time of `_fields`; None where `_fields` has to look."""
    if not _NUMBERS.fullmatch(columns):
        return None
    words = columns.replace("=", ",").split(",")
    values = [int(word[:-1]) if word[-1] == "i" else float(word) for word in words[1::2]]
    if not all(map(math.isfinite, values)):
        return None
    fields: dict[str, FieldValue] = dict(zip(words[::2], values, strict=True))
    return fields if 2 * len(fields) == len(words) else None


def _fields(columns: str) -> dict[str, FieldValue]:
    fields: dict[str, FieldValue] = {}
    begin, more = 0, ","
    while more:
        field = _FIELD.match(columns, begin)
        if field is None:
            raise ValueError(f"there is no field at {columns[begin : begin + 40]!r}")
        name, number, text, other, more = field.groups()
        if "\\" in name:
            name = _ESCAPED.sub(r"\1", name)
        if name in fields:
            raise ValueError(f"it has the field {name!r} twice")
        if number and math.isfinite(value := float(number)):
            fields[name] = value
        elif text is None:
            fields[name] = _value(number or other)
        else:
            fields[name] = _ESCAPED_TEXT.sub(r"\1", text)
        begin = field.end()
    return fields


def _value(text: str) -> FieldValue:
    if text.endswith("i") and _INTEGER.fullmatch(text, 0, len(text) - 1):
        return int(text[:-1])
    if text in ("true", "false"):
        return text == "true"
    raise ValueError(f"{text[:40]!r} is neither a number, true, false nor quoted text")


def _keep_series(head: bytes) -> tuple[str, dict[str, str]]:
    measurement, *pairs = _COMMA.split(head.decode())
    if not measurement or _BLANK.search(measurement):
        raise ValueError("it has no measurement")
    tags: dict[str, str] = {}
    for pair in pairs:
        match _EQUALS.split(pair):
            case [name, value] if name and value and not _BLANK.search(pair):
                tags[_ESCAPED.sub(r"\1", name)] = _ESCAPED.sub(r"\1", value)
            case _:
                raise ValueError(f"there is no tag at {pair[:40]!r}")
    if len(tags) < len(pairs):
        raise ValueError("it has a tag twice")
    if len(_series) >= _MOST_KEPT:
        _series.clear()
    _series[head] = series = (_ESCAPED.sub(r"\1", measurement), tags)
    return series
