"""A Flux query as Grafana sends it to InfluxDB: its page fills in variables, then its server fills in macros."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

ALL: Final = "$__all"
"""The value of a variable for which All is chosen."""

_REFERENCE: Final = re.compile(r"\$(\w+)|\[\[(\w+?)(?::(\w+))?\]\]|\$\{(\w+)(?:\.([^:^}]+))?(?::([^}]+))?\}", re.ASCII)
_MACRO: Final = re.compile(r"([a-zA-Z]+)\.([a-zA-Z]+)")
_REGEX_SPECIAL: Final = re.compile(r"[\\^$*+?.()|\[\]{}/]")

# Below the first number of milliseconds the interval is the second.
_INTERVALS: Final = (
    *((10, 1), (15, 10), (35, 20), (75, 50), (150, 100), (350, 200), (750, 500), (1500, 1000), (3500, 2000)),
    *((7500, 5000), (12500, 10_000), (17500, 15_000), (25_000, 20_000), (45_000, 30_000), (90_000, 60_000)),
    *((210_000, 120_000), (450_000, 300_000), (750_000, 600_000), (1_050_000, 900_000), (1_500_000, 1_200_000)),
    *((2_700_000, 1_800_000), (5_400_000, 3_600_000), (9_000_000, 7_200_000), (16_200_000, 10_800_000)),
    *((32_400_000, 21_600_000), (86_400_000, 43_200_000), (604_800_000, 86_400_000)),
    *((1_814_400_000, 604_800_000), (3_628_800_000, 2_592_000_000)),
)
_YEAR_MS: Final = 31_536_000_000


@dataclass(frozen=True, slots=True)
class Variable:
    """A dashboard's variable and what is chosen of it.

    Attributes:
        value: one value; several, where more may be chosen; `ALL`, alone or among them.
        options: what All stands for, where it has no value of its own.
        all_value: what is put in for All as it is, without any format.
    """

    value: str | Sequence[str]
    options: Sequence[str] = ()
    all_value: str | None = None

    @property
    def all(self) -> bool:
        """Whether All is chosen."""
        return self.value == ALL if isinstance(self.value, str) else [*self.value][:1] == [ALL]


@dataclass(frozen=True, slots=True)
class Moment:
    """What Grafana knows when it asks.

    Attributes:
        start, stop: the dashboard's time range, nanoseconds since the Unix epoch.
        bucket, organization: of the datasource.
        interval_ms: of a panel; see `interval_ms`.
    """

    start: int
    stop: int
    bucket: str
    organization: str = ""
    interval_ms: int = 1000


def interpolate(flux: str, variables: Mapping[str, Variable | str | Sequence[str]], moment: Moment) -> str:
    """The query that reaches InfluxDB.

    Args:
        flux: as a dashboard or a rule has it.
        variables: name → what is chosen. A reference to any other is left as it is.
        moment: of the macros.
    """
    return fill_macros(fill_variables(flux, variables), moment)


def fill_variables(text: str, variables: Mapping[str, Variable | str | Sequence[str]]) -> str:
    """A text with its variables filled in, each in the format that it asks for.

    Raises:
        ValueError: there is no such format.
    """

    def filled(match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[4]
        given = variables.get(name)
        if given is None:
            return match[0]
        variable = given if isinstance(given, Variable) else Variable(given)
        form = (match[3] or match[6] or "glob").partition(":")[0]
        if variable.all and variable.all_value and form != "text":
            return fill_variables(variable.all_value, variables)
        return _formatted(name, [*variable.options] if variable.all else variable.value, form)

    return _REFERENCE.sub(filled, text)


def references(text: str) -> Iterator[tuple[str, str | None]]:
    """The variables that a text refers to, and the format that each is asked for in."""
    for match in _REFERENCE.finditer(text):
        yield match[1] or match[2] or match[4], match[3] or match[6]


def fill_macros(flux: str, moment: Moment) -> str:
    """The query with what Grafana knows of the moment and of the datasource.

    Whatever letters stand before the dot: any `x.bucket` is taken for a macro, wherever it is.
    """
    known = {
        "timeRangeStart": _rfc3339(moment.start),
        "timeRangeStop": _rfc3339(moment.stop),
        "windowPeriod": go_duration(moment.interval_ms),
        "bucket": f'"{moment.bucket}"',
        "defaultBucket": f'"{moment.bucket}"',
        "organization": f'"{moment.organization}"',
    }
    for match in _MACRO.finditer(flux):
        if match[2] in known:
            flux = flux.replace(match[0], known[match[2]])
    return flux


def interval_ms(start: int, stop: int, points: int = 1000, least_ms: int = 1) -> int:
    """How far apart Grafana wants the points of a panel, milliseconds.

    Args:
        start, stop: the time range, nanoseconds.
        points: how many the panel has room for: its width in pixels, or its `maxDataPoints`.
        least_ms: the panel's own limit.
    """
    exact = (stop - start) / 1e6 / points
    return max(least_ms, next((interval for below, interval in _INTERVALS if exact < below), _YEAR_MS))


def go_duration(milliseconds: int) -> str:
    """A duration as Go writes it, which Flux reads: 500ms, 15s, 1m0s, 1h0m0s."""
    seconds, rest = divmod(milliseconds, 1000)
    if not seconds:
        return f"{rest}ms" if rest else "0s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{rest:03d}".rstrip("0") if rest else ""
    shown = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{shown}{seconds}{fraction}s"


def _formatted(name: str, value: str | Sequence[str], form: str) -> str:
    if form not in _FORMATS:
        raise ValueError(f"variable {name}: there is no format {form!r}; use one of {', '.join(_FORMATS)}")
    return _FORMATS[form](name, value)


def _each(value: str | Sequence[str], change: Callable[[str], str], between: str = ",") -> str:
    return change(value) if isinstance(value, str) else between.join(map(change, value))


def regex_escaped(text: str) -> str:
    """A text as a regular expression that matches it alone, in a literal of Flux too."""
    return _REGEX_SPECIAL.sub(lambda match: f"\\{match[0]}", text)


def _regex(_: str, value: str | Sequence[str]) -> str:
    shown = _each(value, regex_escaped, "|")
    return shown if isinstance(value, str) or len(value) == 1 else f"({shown})"


def _glob(_: str, value: str | Sequence[str]) -> str:
    return f"{{{','.join(value)}}}" if not isinstance(value, str) and len(value) > 1 else _each(value, str)


def _percent(_: str, value: str | Sequence[str]) -> str:
    return quote(value if isinstance(value, str) else f"{{{','.join(value)}}}", safe="-_.~")


def _parameters(name: str, value: str | Sequence[str]) -> str:
    return _each(value, lambda text: f"var-{name}={quote(text, safe='-_.~')}", "&")


def _quoted(quote_: str, escaped: str) -> Callable[[str, str | Sequence[str]], str]:
    return lambda _, value: _each(value, lambda text: f"{quote_}{text.replace(quote_, escaped)}{quote_}")


_FORMATS: Final[Mapping[str, Callable[[str, str | Sequence[str]], str]]] = MappingProxyType(
    {
        "regex": _regex,
        "glob": _glob,
        "raw": lambda _, value: _each(value, str),
        "csv": lambda _, value: _each(value, str),
        "pipe": lambda _, value: _each(value, str, "|"),
        "text": lambda _, value: _each(value, str, " + "),
        "json": lambda _, value: json.dumps(
            value if isinstance(value, str) else [*value], ensure_ascii=False, separators=(",", ":")
        ),
        "singlequote": _quoted("'", "\\'"),
        "doublequote": _quoted('"', '\\"'),
        "sqlstring": _quoted("'", "''"),
        "percentencode": _percent,
        "queryparam": _parameters,
    }
)


def _rfc3339(time: int) -> str:
    seconds, rest = divmod(time, 10**9)
    shown = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{shown}{f'.{rest:09d}'.rstrip('0') if rest else ''}Z"
