"""Values of the parameters of a Flux query: from what a user types, to Flux's own terms. Pure.

A value is sent beside the query as its syntax tree, never as text in it; `literal` writes the same as text, for people
who paste a query elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.times import nanoseconds

_LARGEST: Final = 2**63 - 1
_UNITS: Final = ("y", "mo", "w", "d", "h", "m", "s", "ms", "us", "ns")
_LONGEST_YEARS: Final = 292
"""As long as 64 bits of nanoseconds hold."""
_YEARS: Final[Mapping[str, float]] = MappingProxyType(
    {"y": 1, "mo": 1 / 12, "w": 1 / 52, "d": 1 / 365, "h": 1 / 8760, "m": 1 / 525600}
    | {unit: scale / 31_536_000 for unit, scale in (("s", 1), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))}
)
_DURATION: Final = re.compile(r"(-?)((?:\d+(?:y|mo|w|d|h|ms|m|s|us|µs|ns))+)")
_PART: Final = re.compile(r"(\d+)([a-zµ]+)")
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:\d\d)?")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Duration:
    """A span of time as Flux has it: months are not a number of days.

    Attributes:
        parts: amounts and their units, such as ((1, "y"), (6, "mo")).
        negative: whether it leads back.
    """

    parts: tuple[tuple[int, str], ...]
    negative: bool = False


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
    if not (match := _DURATION.fullmatch(text)):
        raise ValueError(f"must be a duration, such as 1h30m or 30d (units: {', '.join(_UNITS)})")
    parts = tuple((int(amount), unit.replace("µ", "u")) for amount, unit in _PART.findall(match[2]))
    if sum(amount * _YEARS[unit] for amount, unit in parts) >= _LONGEST_YEARS:
        raise ValueError(f"must be shorter than {_LONGEST_YEARS} years")
    return Duration(parts, bool(match[1]))


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
        return not value.negative and any(amount for amount, _ in value.parts)
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
            return '"' + re.sub(r'["\\]|\$\{', lambda match: f"\\{match[0]}", value).translate(_ESCAPES) + '"'
        case list():
            return f"[{', '.join(map(literal, value))}]"
        case Duration():
            return f"{'-' * value.negative}{''.join(f'{amount}{unit}' for amount, unit in value.parts)}"
        case Instant():
            return "now()" if value.time is None else _rfc3339(value.time)


_ESCAPES: Final = {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def extern(values: Mapping[str, Value]) -> dict[str, Any]:
    """Return the syntax tree of a file that sets the values, which InfluxDB puts before a query."""
    return {"type": "File", "package": None, "imports": [], "body": [_option(*named) for named in values.items()]}


def _option(name: str, value: Value) -> dict[str, Any]:
    assignment = {"type": "VariableAssignment", "id": _identifier(name), "init": _tree(value)}
    return {"type": "OptionStatement", "assignment": assignment}


def _identifier(name: str) -> dict[str, Any]:
    return {"type": "Identifier", "name": name}


def _tree(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"type": "BooleanLiteral", "value": value}
        case int():
            return _signed({"type": "IntegerLiteral", "value": str(abs(value))}, value < 0)
        case float():
            # InfluxDB reads a number in JSON to about its last digit; text it reads exactly.
            return _call("float", v={"type": "StringLiteral", "value": repr(value)})
        case str():
            return {"type": "StringLiteral", "value": value}
        case list():
            return {"type": "ArrayExpression", "elements": [_tree(each) for each in value]}
        case Duration():
            parts = [{"magnitude": amount, "unit": unit} for amount, unit in value.parts]
            return _signed({"type": "DurationLiteral", "values": parts}, value.negative)
        case Instant():
            if value.time is None:
                return _call("now")
            return {"type": "DateTimeLiteral", "value": _rfc3339(value.time)}


def _call(name: str, **arguments: dict[str, Any]) -> dict[str, Any]:
    given = [{"type": "Property", "key": _identifier(key), "value": value} for key, value in arguments.items()]
    return {
        "type": "CallExpression",
        "callee": _identifier(name),
        "arguments": [{"type": "ObjectExpression", "properties": given}] if given else [],
    }


def _signed(tree: dict[str, Any], negative: bool) -> dict[str, Any]:
    return {"type": "UnaryExpression", "operator": "-", "argument": tree} if negative else tree


def _rfc3339(time: int) -> str:
    seconds, rest = divmod(time, 10**9)
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{(_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()}{fraction}Z"
