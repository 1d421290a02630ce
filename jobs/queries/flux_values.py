"""Values of the parameters of a Flux query: from what a user types, to Flux's own terms. Pure.

A value is sent beside the query in a syntax tree, never as text in it; `literal` writes it as text, for people who
paste a query elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.times import nanoseconds
from gatewatch.jobs.text import printable

_LARGEST: Final = 2**63 - 1
_YEAR: Final = 31_536_000
_SECONDS: Final[Mapping[str, float]] = MappingProxyType(
    {"y": _YEAR, "mo": _YEAR / 12, "w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
    | {"ms": 1e-3, "us": 1e-6, "ns": 1e-9}
)
"""Unit of a duration → its usual length."""
_LONGEST_YEARS: Final = 292
"""As long as 64 bits of nanoseconds hold."""
_PART: Final = re.compile(r"([0-9]+)(y|mo|w|d|h|ms|m|s|us|µs|ns)")
_DURATION: Final = re.compile(rf"-?(?:{_PART.pattern})+")
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)?")


_ITEM: Final = re.compile(r"([A-Za-z_]\w*)(?::(\w+))?=(.*)", re.ASCII | re.DOTALL)
_TAKEN: Final = frozenset(
    {"and", "builtin", "else", "exists", "if", "import", "not", "option", "or", "package", "return", "testcase", "then"}
)
"""Words of Flux itself."""


@dataclass(frozen=True, slots=True)
class Duration:
    """A span of time as Flux writes it, such as `-1y6mo`: months are not a number of days."""

    text: str


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment, nanoseconds since the Unix epoch; None is the moment of the question."""

    time: int | None = None


Value = str | bool | int | float | Duration | Instant | list[str]


def integer(text: str) -> int:
    """Read a whole number."""
    if not re.fullmatch(r"[+-]?\d{1,20}", text, re.ASCII) or abs(int(text)) > _LARGEST:
        raise ValueError("must be a whole number of at most 64 bits, such as 100")
    return int(text)


def number(text: str) -> float:
    """Read a number."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?", text, re.ASCII) or math.isinf(float(text)):
        raise ValueError("must be a number, such as 0.5 or 1e-7")
    return float(text)


def truth(text: str) -> bool:
    """Read `true` or `false`."""
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return text == "true"


def duration(text: str) -> Duration:
    """Read a duration."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"must be a duration, such as 1h30m or 30d (units: {', '.join(_SECONDS)})")
    parts = [(amount, unit) for amount, unit in _PART.findall(text.replace("µ", "u")) if int(amount)]
    if sum(int(amount) * _SECONDS[unit] for amount, unit in parts) >= _LONGEST_YEARS * _YEAR:
        raise ValueError(f"must be shorter than {_LONGEST_YEARS} years")
    if not parts:
        return Duration("0s")
    return Duration("-" * text.startswith("-") + "".join(map("".join, parts)))  # InfluxDB refuses `-0mo1d`


def moment(text: str) -> Duration | Instant:
    """Read a time: RFC 3339 or a day, UTC where it names no zone; a duration, which counts from now; or `now`."""
    if text == "now":
        return Instant()
    if _DURATION.fullmatch(text):
        return duration(text)
    try:
        if not (match := _TIME.fullmatch(text)):
            raise ValueError
        read = datetime.fromisoformat(match[1].replace(" ", "T"))
        read = datetime.fromisoformat(f"{read.isoformat()}{(match[3] or 'Z').upper()}")
        return Instant(nanoseconds(nanoseconds(read) + int((match[2] or "").ljust(9, "0"))))
    except (ValueError, ConfigError, OverflowError):
        raise ValueError(
            "must be a time, such as 2026-01-31, 2026-01-31T09:30:00Z, -30d (before now) or now, in the years 1678 to"
            " 2262"
        ) from None


READERS: Final[Mapping[str, Callable[[str], Value]]] = MappingProxyType(
    {
        "string": str,
        "int": integer,
        "float": number,
        "bool": truth,
        "duration": duration,
        "time": moment,
        "strings": lambda text: [text],
    }
)
"""Type → what reads its text. A reader's ValueError says what the text must be."""


def read(kind: str, texts: list[str]) -> Value:
    """Return the value of a type that was typed: once, or any number of times for `strings`.

    Raises:
        ValueError: it is none of this type, or was given twice; says what it must be.
    """
    if kind == "strings":
        return texts
    if len(texts) > 1:
        raise ValueError("was given more than once")
    return READERS[kind](texts[0])


def above_zero(value: Value) -> bool:
    """Return whether a number or a duration is greater than zero."""
    if isinstance(value, Duration):
        return not value.text.startswith("-") and re.search("[1-9]", value.text) is not None
    return isinstance(value, int | float) and value > 0


def guess(text: str) -> Value:
    """Return a text as the first type that it can be: int, float, bool, duration, time; else it is a string."""
    for kind in ("int", "float", "bool", "duration", "time"):
        if text == "now":
            break
        try:
            return READERS[kind](text)
        except ValueError:
            continue
    return text


def parse_items(items: Sequence[str]) -> dict[str, list[str]]:
    """Return name → the texts that were given for it, from items NAME=VALUE.

    Raises:
        ConfigError: an item has another form.
    """
    found: dict[str, list[str]] = {}
    for item in items:
        name, kind, text = _parts(item)
        if kind is not None:
            raise ConfigError(f"--param {_short(item)}: a named query declares its types; give {name}=VALUE")
        found.setdefault(name, []).append(text)
    return found


def parse_typed_items(items: Sequence[str]) -> dict[str, Value]:
    """Name → value, of items NAME:TYPE=VALUE or NAME=VALUE, whose type is the first that fits; see `guess`.

    Raises:
        ConfigError: an item has another form, its type is unknown, its text is none of it, or its name was given twice.
    """
    found: dict[str, Value] = {}
    for item in items:
        name, kind, text = _parts(item)
        if kind is not None and kind not in READERS:
            raise ConfigError(f"--param {_short(item)}: no type {kind!r}; there are {', '.join(READERS)}")
        if name in _TAKEN:
            raise ConfigError(f"--param {_short(item)}: {name!r} is a word of Flux itself; choose another name")
        known = found.get(name)
        if known is not None and not (kind == "strings" and isinstance(known, list)):
            raise ConfigError(f"--param {_short(item)}: {name} was given before; a list is {name}:strings=VALUE, again")
        try:
            value = guess(text) if kind is None else read(kind, [text])
        except ValueError as problem:
            raise ConfigError(f"--param {_short(item)}: {problem}") from None
        found[name] = [*known, text] if isinstance(known, list) else value
    return found


def _parts(item: str) -> tuple[str, str | None, str]:
    if not (match := _ITEM.fullmatch(item)):
        raise ConfigError(f"--param {_short(item)}: must be NAME=VALUE, such as run=goog-1")
    if not item.isascii() and any("\ud800" <= character <= "\udfff" for character in item):
        raise ConfigError(f"--param {_short(item)}: is not UTF-8; see the terminal's encoding")
    return match[1], match[2], match[3]


def _short(item: str) -> str:
    return printable(item)[:100]


def literal(value: Value) -> str:
    """Return a value as Flux text."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            text = format(Decimal(repr(value)), "f")  # Flux knows no exponents
            return text if "." in text else f"{text}.0"
        case str():
            text = _SPECIAL.sub(lambda match: "\\x24" if match[0] == "$" else f"\\{match[0]}", value)
            return f'"{text.translate(_ESCAPES)}"'
        case list():
            return f"[{', '.join(map(literal, value))}]"
        case Duration():
            return value.text
        case Instant():
            return "now()" if value.time is None else f"{np.datetime64(value.time, 'ns')}".rstrip("0").rstrip(".") + "Z"


_SPECIAL: Final = re.compile(r'["\\]|\$\{|\$(?=\$*(?:["\\\n\r\t]|\$\{))')
"""What a text of Flux holds behind a backslash; a dollar before one must be written as its code."""
_ESCAPES: Final = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def extern(values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the syntax tree of a file that sets the values, which InfluxDB puts before a query."""
    body = [
        {
            "type": "OptionStatement",
            "assignment": {"type": "VariableAssignment", "id": _identifier(name), "init": _tree(value)},
        }
        for name, value in values.items()
    ]
    return {"type": "File", "package": None, "imports": [], "body": body}


def _identifier(name: str) -> dict[str, Any]:
    return {"type": "Identifier", "name": name}


def _tree(value: Value) -> dict[str, Any]:
    match value:
        case str():
            return {"type": "StringLiteral", "value": value}
        case list():
            return {"type": "ArrayExpression", "elements": [_tree(each) for each in value]}
        case Instant(time=None):
            return _call("now", [])
    # Text is read exactly; a number in JSON is read to about its last digit.
    text = {"type": "Property", "key": _identifier("v"), "value": _tree(literal(value))}
    return _call(_CONVERSIONS[type(value)], [{"type": "ObjectExpression", "properties": [text]}])


_CONVERSIONS: Final = {bool: "bool", int: "int", float: "float", Duration: "duration", Instant: "time"}
"""Type → the function of Flux that makes such a value of text."""


def _call(function: str, arguments: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "CallExpression", "callee": _identifier(function), "arguments": arguments}
