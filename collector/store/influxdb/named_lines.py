"""Which lines of a batch InfluxDB names in the answer by which it refused it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from gatewatch.collector.line_protocol import parse
from gatewatch.collector.schema import Point
from gatewatch.collector.text import one_line

_UNPARSED: Final = re.compile(r"(?:^|\n)unable to parse '")
_CONFLICT: Final = re.compile(r'input field "(.*?)" on measurement "(.*?)" is type (\w+), already exists')
_TOO_LONG: Final = re.compile(r'input field "(.*?)" on measurement "(.*?)" is too long')
_LOWER_BOUND: Final = re.compile(r"Retention Policy Lower Bound at (\S+?)(?:\.\d+)?Z")
_TYPES: Final[Mapping[str, type]] = {"boolean": bool, "integer": int, "float": float, "string": str}


def unparsed_lines(lines: Sequence[bytes], message: str) -> dict[bytes, str]:
    """Return the lines that the answer says cannot be parsed, each with the reason; it names all of them."""
    sent, reasons = set(lines), dict[bytes, str]()
    for entry in _UNPARSED.split(message)[1:]:
        for end in re.finditer("': ", entry):
            if (line := entry[: end.start()].encode()) in sent:
                reasons[line] = one_line(f"the line cannot be parsed: {entry[end.end() :]}", 300)
                break
    return reasons


def suspects(lines: Sequence[bytes], message: str) -> list[bytes]:
    """Return the lines of which the answer speaks: all that it dropped may be among them, and others too.

    It names the first field whose type differs, or that is too long, or the bound of the retention.
    """
    is_meant = _meant(message)
    if is_meant is None:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            if is_meant(parse(line)):
                found.append(line)
    return found


def _meant(message: str) -> Callable[[Point], bool] | None:
    if match := _CONFLICT.search(message):
        field, measurement, kind = match[1], match[2], _TYPES.get(match[3], object)
        return lambda point: point.measurement == measurement and type(point.fields.get(field)) is kind
    if match := _TOO_LONG.search(message):
        field, measurement = match[1], match[2]
        return lambda point: point.measurement == measurement and len(str(point.fields.get(field, ""))) > 2**18
    if match := _LOWER_BOUND.search(message):
        bound = int(datetime.fromisoformat(f"{match[1]}+00:00").timestamp()) * 10**9
        return lambda point: point.time < bound
    return None
