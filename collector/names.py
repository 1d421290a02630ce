"""What a run, a tag, a layer or a path may be called, and how a name becomes one that every store can hold."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.text import one_line, safe_repr

PHASES: Final = ("train", "validation", "backtest", "live")
MARKET_PHASES: Final = ("backtest", "live")
"""The phases that walk through a market, window by window."""
MAX_NAME_BYTES: Final = 512
MAX_USER_TAGS: Final = 8
"""A user's own tags multiply the series of a run: a few describe it, many are data."""

OWN_TAGS: Final = frozenset(
    {"run", "phase", "layer", "gate", "param", "detector", "job", "rule", "statistic", "look", "group"}
)
"""Tags that the points carry themselves. `statistic` and `look` are kept for points of what is fed to a network: a tag
that became Gatewatch's later would make the runs of users who had it first illegal."""
# Names that InfluxDB keeps for itself.
RESERVED_NAMES: Final = frozenset({"time", "_time", "_field", "_measurement", "_value", "_start", "_stop"})

_LOST_BACKSLASH = re.compile(r'\\(?=[,= "])')
_JOINERS: Final = "\u200c\u200d"
"""Invisible, and a part of the spelling of Persian and of emoji."""
_HIDDEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories: control, format (among them what turns the direction of text), surrogates, ends of lines."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def clean_name(name: str) -> str:
    """A name that every store can hold, for names that Gatewatch is given and cannot refuse (layers, metrics).

    What nobody can see (control characters, those that turn the direction of text, lone surrogates) is written as
    escapes. A backslash that line protocol cannot hold, at the end or before a character that it escapes, becomes a
    slash; an empty name becomes `_`, one that is too long ends in a hash, and a name that InfluxDB keeps for itself
    gets a final underscore.
    """
    name = name if isinstance(name, str) else one_line(name)
    name = "".join(c.encode("unicode_escape").decode("ascii") if _is_hidden(c) else c for c in name)
    if len(name.encode()) > MAX_NAME_BYTES:
        short = name.encode()[: MAX_NAME_BYTES - 9].decode(errors="ignore")
        name = f"{short}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    if name.endswith("\\"):
        name = name.rstrip("\\") + "/"
    name = _LOST_BACKSLASH.sub("/", name)
    if not name.strip():
        return "_"
    return f"{name}_" if name in RESERVED_NAMES else name


def name_problem(name: object) -> str | None:
    """Why no store can hold a name as a tag value, a tag key or a field key; None where every store can."""
    if not isinstance(name, str):
        return f"must be text, not {type(name).__name__}"
    if not name.strip():
        return "must not be empty"
    if match := _CONTROL.search(name):
        return f"must not contain the control character {match[0]!r}"
    if name.endswith("\\"):
        return "must not end with a backslash, which line protocol cannot hold"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"must be at most {MAX_NAME_BYTES} bytes long"
    return None


def _is_hidden(character: str) -> bool:
    """Return whether nobody can see a character: a control character, or one that turns the direction of text."""
    return not character.isprintable() and character not in _JOINERS and unicodedata.category(character) in _HIDDEN


def new_name_problem(name: object) -> str | None:
    """Why a user cannot give a new run or tag a name, of which all must be visible; stores may hold others."""
    hidden = next(filter(_is_hidden, name), None) if isinstance(name, str) else None
    return f"must not contain the control character {hidden!r}" if hidden else name_problem(name)


def check_run(run: object, argument: str = "run") -> str:
    """The run's id, where it can be one.

    Args:
        run: the id.
        argument: in which it was given, for the message.

    Raises:
        ConfigError: it is empty, not text, too long, or has a control character.
    """
    problem = new_name_problem(run)
    if problem or not isinstance(run, str):
        new = argument == "run"
        remedy = "choose another, such as 'goog-lstm-1'" if new else "`gatewatch runs` lists those there are"
        raise ConfigError(f"{argument}={safe_repr(run)}: a run's name {problem}; {remedy}")
    return run


def check_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """A user's own tags, where they can be ones: few, text, and no name that the points carry themselves.

    A tag may be named like any field: whoever reads points keeps the two apart, see `Store.read`. Fields that are
    added later make no tag illegal.

    Raises:
        ConfigError: names the first tag that cannot be one, and why.
    """
    if tags is not None and not isinstance(tags, Mapping):
        raise ConfigError(f"tags={safe_repr(tags)}: must be a mapping, such as {{'symbol': 'GOOG'}}")
    tags = dict(tags or {})
    if len(tags) > MAX_USER_TAGS:
        raise ConfigError(f"tags: {len(tags)} given, at most {MAX_USER_TAGS} are allowed; log numbers as metrics")
    for key, value in tags.items():
        if problem := new_name_problem(key):
            raise ConfigError(f"tags: the name {safe_repr(key)} {problem}")
        if key in OWN_TAGS or key in RESERVED_NAMES or key.startswith("_"):
            raise ConfigError(f"tags: the name {safe_repr(key)} is taken by Gatewatch or InfluxDB; choose another")
        if problem := new_name_problem(value):
            raise ConfigError(f"tags: the value of {safe_repr(key)}, {safe_repr(value)}, {problem}")
    return tags


def check_feature_names(names: Sequence[str] | None) -> list[str] | None:
    """The names of what is fed, as every store can hold them: see `clean_name`.

    Raises:
        ConfigError: they are no list of texts, or one comes twice.
    """
    if names is None:
        return None
    listed = None if isinstance(names, str | bytes | Mapping) or not hasattr(names, "__iter__") else list(names)
    if not listed or not all(isinstance(name, str) for name in listed):
        example = "give a list of texts, such as ['return', 'volume']"
        raise ConfigError(f"feature_names={safe_repr(names)}: must be the names of the features; {example}")
    if len(set(listed)) < len(listed):
        twice = next(name for place, name in enumerate(listed) if name in listed[:place])
        raise ConfigError(f"feature_names: {safe_repr(twice)} comes twice; give each feature a name of its own")
    return [clean_name(name) for name in listed]


def check_phase(phase: str) -> str:
    """The phase, where it is one of `PHASES`.

    Raises:
        ConfigError: it is not.
    """
    if phase not in PHASES:
        raise ConfigError(f"phase={safe_repr(phase)}: must be one of {', '.join(PHASES)}")
    return phase


def path_name(name: str) -> str:
    """A name as one component of a path on any file system: readable, never empty, never leading elsewhere.

    What a path cannot hold becomes `_`; a name that was changed gets a short hash, so two names stay two paths.
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80].strip("._").removesuffix(".npz")  # which is a file of gates
    return safe if safe and safe == name else f"{safe or 'run'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def backslash_problem(name: str) -> str | None:
    """Return why a name with a backslash cannot be a measurement or a field key; None where it can."""
    lost = _LOST_BACKSLASH.search(name)
    return "must not have a backslash before a comma, an equals sign, a space or a quote" if lost else None
