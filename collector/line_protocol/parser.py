r"""Line protocol read back: bytes in, points out.

In what `line_protocol.encode` writes, a comma, an equals sign or a space of a name comes right after a backslash, and
one that separates never does; a quote opens text only right after the equals sign of a field, and only within text can
there be a newline.

Python reads a float slowly and orjson reads it fast, so the numbers of a line go through one call of orjson. Which of
them are integers is kept by what is left of the fields' values without the digits, as `,,i,,i`. Whatever is not a plain
number under a plain name takes the plain way, `_parse_any`, which says what is wrong where something is.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import Final

import orjson

from gatewatch.collector.schema import FieldValue, Point

_MOST_KEPT: Final = 4096
_OF_FLOATS: Final = b"0123456789.e+-"
_NO_SEPARATORS: Final = bytes(set(range(256)) - set(b"=,"))

_COMMA: Final = re.compile(r"(?<!\\),")
_EQUALS: Final = re.compile(r"(?<!\\)=")
_BLANK: Final = re.compile(r"(?<!\\) ")
_ESCAPED: Final = re.compile(r"\\([,= ])")
_ESCAPED_TEXT: Final = re.compile(r'\\(["\\])')
_FIELD: Final = re.compile(r'((?:\\[,= ]|[^,= \n])++)=(?:"((?:[^"\\]|\\["\\])*+)"|([^," ]++))(,|\Z)')
_FLOAT: Final = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?")
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_LINE: Final = re.compile(
    rb'(?:\\ |[^ \n])++ (?:(?:\\[,= ]|[^,= \n])++=(?:"(?:[^"\\]|\\["\\])*+"|[^," \n]++),?+)++ [^ "\n]++(?=\n|\Z)'
)

_series: dict[bytes, tuple[str, dict[str, str]]] = {}
_integers: dict[bytes, tuple[int, ...]] = {}


def decode(lines: bytes) -> list[Point]:
    r"""The points of line protocol, as `encode` was given them.

    Tags and fields come sorted by name, and tags without a value are gone. Only the grammar is looked at: whether a
    store can hold a point is for `schema.point_problem` to say.

    Args:
        lines: such as `encode` gives: every line ends in `\n`.

    Raises:
        ValueError: names the first line that is none, by number and beginning, and says why.
    """
    each = split_lines(lines)
    points: list[Point] = []
    for line in each:
        try:
            points.append(parse(line))
        except ValueError as error:
            raise ValueError(f"line {len(points) + 1}, {_shown(line)}: {error}") from None
    if lines and not lines.endswith(b"\n"):
        raise ValueError(f"line {len(each)}, {_shown(each[-1])}: no newline ends it, so it may be cut off")
    return points


def split_lines(lines: bytes) -> list[bytes]:
    """The lines, without the newlines that end them; within the text of a sound line a newline ends none."""
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
    """The point of one line, without the newline that ends it.

    Raises:
        ValueError: says what is wrong with the line.
    """
    with suppress(ValueError):
        head, columns, time = line.rsplit(b" ", 2)
        if b'"' not in columns and b"\\" not in columns and not head.endswith(b"\\"):
            return _parse_numbers(head, columns, time)
    return _parse_any(line)


def _parse_numbers(head: bytes, columns: bytes, time: bytes) -> Point:
    words = columns.decode().replace("=", ",").split(",")
    names = words[::2]
    text = ",".join(words[1::2]).encode() + b","
    kinds = text.translate(None, _OF_FLOATS)
    try:
        positions = _integers[kinds]
    except KeyError:
        positions = _keep_integers(kinds)
    numbers = orjson.loads(b"[%b%b]" % (text.replace(b"i,", b","), time))
    moment = numbers.pop()
    fields: dict[str, FieldValue] = dict(zip(names, map(float, numbers), strict=True))
    for i in positions:
        fields[names[i]] = numbers[i]
    sound = (
        columns.translate(None, _NO_SEPARATORS) + b"," == b"=," * len(names)
        and len(fields) == len(names)
        and "" not in fields
        and b"-0," not in text  # orjson gives it without its sign
        and {type(moment), *(type(numbers[i]) for i in positions)} == {int}
    )
    if not sound:
        raise ValueError
    measurement, tags = _series.get(head) or _keep_series(head)
    return Point(measurement, tags.copy(), fields, moment)


def _keep_integers(kinds: bytes) -> tuple[int, ...]:
    kept = kinds.split(b",")
    if not {b"", b"i"}.issuperset(kept):
        raise ValueError
    if len(_integers) >= _MOST_KEPT:
        _integers.clear()
    _integers[kinds] = positions = tuple(i for i, kind in enumerate(kept) if kind)
    return positions


def _parse_any(line: bytes) -> Point:
    try:
        head, *rest = _BLANK.split(line.decode(), maxsplit=1)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    columns, blank, time = rest[0].rpartition(" ") if rest else ("", "", "")
    if not blank:
        raise ValueError("it has not the three parts: series, fields, time")
    if not _INTEGER.fullmatch(time):
        raise ValueError(f"its time {time[:40]!r} is no integer")
    fields: dict[str, FieldValue] = {}
    begin, more = 0, ","
    while more:
        field = _FIELD.match(columns, begin)
        if field is None:
            raise ValueError(f"there is no field at {columns[begin : begin + 40]!r}")
        name = _ESCAPED.sub(r"\1", field[1])
        if name in fields:
            raise ValueError(f"it has the field {name!r} twice")
        fields[name] = _value(field[3]) if field[2] is None else _ESCAPED_TEXT.sub(r"\1", field[2])
        begin, more = field.end(), field[4]
    measurement, tags = _series.get(head.encode()) or _keep_series(head.encode())
    return Point(measurement, tags.copy(), fields, int(time))


def _value(text: str) -> FieldValue:
    if text in ("true", "false"):
        return text == "true"
    if text.endswith("i") and _INTEGER.fullmatch(text[:-1]):
        return int(text[:-1])
    if _FLOAT.fullmatch(text) and math.isfinite(value := float(text)):
        return value
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


def _shown(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace")) + ("…" if len(line) > 60 else "")
