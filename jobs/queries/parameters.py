"""Parses the items of `--param`. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gatewatch.collector.errors import ConfigError
from gatewatch.jobs.queries.flux_values import READERS, Value, guess, read
from gatewatch.jobs.text import printable

_ITEM: Final = re.compile(r"([A-Za-z_]\w*)(?::(\w+))?=(.*)", re.ASCII | re.DOTALL)
_TAKEN: Final = frozenset(
    {"and", "builtin", "else", "exists", "if", "import", "not", "option", "or", "package", "return", "testcase", "then"}
)
"""Words of Flux itself."""


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
