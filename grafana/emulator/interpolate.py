"""Fill in a Flux query as Grafana does: its page inserts variables, then its server expands macros."""

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

# Where the exact interval is below the first number (milliseconds), Grafana takes the second.
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
    """A dashboard's variable with its value.

    Attributes:
        value: one value; several, where more may be chosen; `ALL`, alone or among them.
        options: the values that All stands for where `all_value` is None.
        all_value: inserted for All as it is, without a format.
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
    """What Grafana fills into the macros of a query.

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
    """Return the query that reaches InfluxDB.

    Args:
        flux: as a dashboard or a rule has it.
        variables: name → value. A reference to any other variable stays as it is.
        moment: what the macros stand for.
    """
    return fill_macros(fill_variables(flux, variables), moment)


def fill_variables(text: str, variables: Mapping[str, Variable | str | Sequence[str]]) -> str:
    """Return a text with its variables filled in, each in the format that the reference names.

    Raises:
        ValueError: a format does not exist.
    """

    def filled(match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[4]
        value = variables.get(name)
        if value is None:
            return match[0]
        variable = value if isinstance(value, Variable) else Variable(value)
        form = (match[3] or match[6] or "glob").partition(":")[0]
        if variable.all and variable.all_value and form != "text":
            return fill_variables(variable.all_value, variables)
        return _formatted(name, [*variable.options] if variable.all else variable.value, form)

    return _REFERENCE.sub(filled, text)


def references(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the variables that a text refers to, each with the format of the reference; None where it names none."""
    for match in _REFERENCE.finditer(text):
        yield match[1] or match[2] or match[4], match[3] or match[6]


def fill_macros(flux: str, moment: Moment) -> str:
    """Return the query with its macros expanded.

    Grafana takes any `x.bucket` for a macro, whatever letters stand before the dot.
    """
    macros = {
        "timeRangeStart": _rfc3339(moment.start),
        "timeRangeStop": _rfc3339(moment.stop),
        "windowPeriod": go_duration(moment.interval_ms),
        "bucket": f'"{moment.bucket}"',
        "defaultBucket": f'"{moment.bucket}"',
        "organization": f'"{moment.organization}"',
    }
    for match in _MACRO.finditer(flux):
        if match[2] in macros:
            flux = flux.replace(match[0], macros[match[2]])
    return flux


def interval_ms(start: int, stop: int, points: int = 1000, least_ms: int = 1) -> int:
    """Return the milliseconds between two points of a panel.

    Args:
        start, stop: the time range, nanoseconds.
        points: the panel's `maxDataPoints`, or else its width in pixels.
        least_ms: the panel's own lower limit.
    """
    exact = (stop - start) / 1e6 / points
    return max(least_ms, next((interval for below, interval in _INTERVALS if exact < below), _YEAR_MS))


def go_duration(milliseconds: int) -> str:
    """Return a duration as Go writes it, which Flux reads: 500ms, 15s, 1m0s, 1h0m0s."""
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
    """Return a regular expression that matches this text alone; a regex literal of Flux can hold it."""
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
