"""A named query: a file beside this one, whose first comment says what it answers and its parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import GATE_STATS_FIELDS, HISTOGRAM_FIELDS
from gatewatch.collector.text import nearest, safe_repr
from gatewatch.jobs.queries.flux_values import Value, above_zero, literal, read
from gatewatch.jobs.text import printable

BUCKET: Final = "bucket"
"""What every query calls the bucket that it reads; the store says which that is."""
_PARAMETER: Final = re.compile(r"param (\w+): (\w+)(?: (> 0|of gate_stats))?(?: = (\S+))? {2,}(\S.*)")
_STATISTICS: Final = [name for name in GATE_STATS_FIELDS if name not in (*HISTOGRAM_FIELDS, "step", "epoch")]
_COLUMNS: Final = re.compile(r"columns: (.+)")
_WORDS: Final = re.compile(r"in words: (\w+)")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query.

    Attributes:
        name: as the query calls it.
        kind: its type, one of `flux_values.READERS`.
        limits: a further condition: "> 0", or "of gate_stats" for the name of a field of `gate_stats`; None: none.
        default: as a user would type it; None where a value is required. For `strings` None means an empty list.
        help: what it is for.
    """

    name: str
    kind: str
    limits: str | None
    default: str | None
    help: str

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is None and self.kind != "strings"

    def value(self, texts: list[str] | None) -> Value:
        """Return its value from what was typed; None stands for nothing, which is the default.

        Raises:
            ValueError: says what it must be.
        """
        if texts is None and self.default is not None:
            texts = [self.default]
        value = read(self.kind, texts or [])
        if self.limits == "> 0" and not above_zero(value):
            raise ValueError("must be more than 0")
        if self.limits == "of gate_stats" and value not in GATE_STATS_FIELDS:
            raise ValueError(f"must be a statistic of a gate: {', '.join(_STATISTICS)}, or hist_00 to hist_19")
        return value


@dataclass(frozen=True, slots=True)
class Query:
    """A named query.

    Attributes:
        name: of its file.
        title: what it answers, in one line.
        about: the same at length, in one paragraph.
        parameters: without the bucket.
        columns: of its answer, in order.
        words: what the columns begin with that are put into words, in the column `why`; None where there are none.
        text: the file, whole.
    """

    name: str
    title: str
    about: str
    parameters: tuple[Parameter, ...]
    columns: tuple[str, ...]
    words: str | None
    text: str

    def values(self, given: Mapping[str, list[str]], bucket: str) -> dict[str, Value]:
        """Return the value of every parameter, by name, the bucket first.

        Args:
            given: parameter → what was typed for it, each time that it was.
            bucket: that is read.

        Raises:
            ConfigError: one is unknown, missing, or not of its type; says which, and what it must be.
        """
        for name in given:
            if name not in (known := [parameter.name for parameter in self.parameters]):
                allowed = f"it has {', '.join(known) or 'none'}{nearest(name, known)}"
                raise ConfigError(f"--param {printable(name)}: query {self.name!r} has no such parameter; {allowed}")
        values: dict[str, Value] = {BUCKET: bucket}
        for parameter in self.parameters:
            name, texts = parameter.name, given.get(parameter.name)
            if texts is None and parameter.required:
                raise ConfigError(f"query {self.name!r} needs --param {name}=…: {parameter.help}")
            try:
                values[name] = parameter.value(texts)
            except ValueError as problem:
                shown = printable(f"{name}={texts[0]}")[:100] if texts and len(texts) == 1 else name
                raise ConfigError(f"--param {shown}: {problem} (query {self.name!r})") from None
        return values

    def filled(self, values: Mapping[str, Value]) -> str:
        """Return the query with its values written into it, to be pasted elsewhere."""
        body = self.text[len(_header(self.text)) :].strip("\n")
        imports = re.match(r'(?:import "[^"\n]*"\n)*', body)
        end = imports.end() if imports else 0
        given = "\n".join(f"{name} = {literal(value)}" for name, value in values.items())
        return "\n\n".join(
            part for part in (f"// {self.title}", body[:end].rstrip(), given, body[end:].strip()) if part
        )


def parse(name: str, text: str) -> Query:
    """Return the query of a file.

    Raises:
        ValueError: the first comment does not say what it must.
    """
    lines = [line.removeprefix("//").strip() for line in _header(text).splitlines()]
    about, parameters, columns, words = [], [], None, None
    for line in lines[1:]:
        if match := _PARAMETER.fullmatch(line):
            parameters.append(Parameter(*match.groups()))
        elif match := _COLUMNS.fullmatch(line):
            columns = tuple(match[1].split(", "))
        elif match := _WORDS.fullmatch(line):
            words = match[1]
        else:
            about.append(line)
    if not lines or not columns:
        raise ValueError(f"{name}.flux: the first comment must have a title and the columns")
    return Query(name, lines[0], " ".join(about).strip(), tuple(parameters), columns, words, text)


@cache
def queries() -> Mapping[str, Query]:
    """Return every named query by its name, in alphabetical order."""
    files = [file for file in resources.files(__package__).iterdir() if file.name.endswith(".flux")]
    found = [parse(file.name.removesuffix(".flux"), file.read_text("utf-8")) for file in files]
    return MappingProxyType({query.name: query for query in sorted(found, key=lambda query: query.name)})


def named(name: str) -> Query:
    """Return the query of a name.

    Raises:
        ConfigError: there is none; lists those that there are.
    """
    if name not in queries():
        there = f"there are {', '.join(queries())}{nearest(name, queries())}"
        raise ConfigError(f"no query is named {safe_repr(name)}; {there}")
    return queries()[name]


def assigns(text: str, name: str) -> bool:
    """Return whether a query sets a name by itself, at the beginning of a line."""
    return re.search(rf"^(?:option\s+)?{name}\s*=(?![=~>])", text, re.MULTILINE) is not None


def _header(text: str) -> str:
    """Return the first comment of a file."""
    match = re.match(r"(?://.*\n)*", text)
    return match[0] if match else ""


def signature(parameters: Sequence[Parameter]) -> str:
    """Return the parameters of a query in one line: required ones as they are, others in brackets."""
    shown = [
        each.name if each.required else f"[{each.name}{'…' if each.kind == 'strings' else f'={each.default}'}]"
        for each in parameters
    ]
    return " ".join(shown)
