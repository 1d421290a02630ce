"""Text of unknown origin (errors, names, values of a user's classes) made legible, for logs, errors and points."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, Final

LONGEST_LINE: Final = 1000
"""Characters of the longest line of a log or an error."""
_LONGEST_VALUE: Final = 300
"""Characters of a value in such a line, which has more to say."""
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_LINE_ENDS: Final = re.compile(r"[^\S ]+")
"""White space but for plain blanks: tabs, line ends of every script, blanks that do not break."""


def escape_controls(text: str, keep: str = "") -> str:
    r"""Return a text with escapes, such as `\x1b`, in place of every character that cannot be printed.

    These are control characters, those that turn the direction of text, lone surrogates, and what has no shape.

    Args:
        text: of one line or several.
        keep: characters that stay as they are, such as the ends of lines.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten_middle(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters; a longer one loses its middle, since errors end in the remedy."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def one_line(text: object, limit: int = LONGEST_LINE) -> str:
    """Return text as one legible line: without line ends and colours, other control characters as escapes.

    Args:
        text: anything; where its `str` raises, the line names its type.
        limit: characters of the line; a longer one loses its middle.
    """
    try:
        shown = str(text)
    except Exception:  # a user's class may do anything
        return f"a {type(text).__name__} that cannot be shown"
    parts = (part.strip() for part in _LINE_ENDS.split(_COLOUR.sub("", shown)))
    return shorten_middle(escape_controls(" ".join(filter(None, parts))), limit)


def safe_repr(value: Any) -> str:
    """Return `repr(value)` as a part of one line; of an array its shape, where `repr` raises the name of the type."""
    try:
        is_array = not isinstance(value, type) and hasattr(value, "dtype") and bool(tuple(value.shape))
        shown = f"{type(value).__name__} of shape {tuple(value.shape)}" if is_array else repr(value)
        return one_line(shown, _LONGEST_VALUE)
    except Exception:  # a user's class may do anything
        return f"a {type(value).__name__} that cannot be shown"


def describe_exception(error: BaseException) -> str:
    """Return the type and the message of an exception as one line."""
    text = one_line(error)
    return one_line(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the question whether one of some names was meant, to be put behind an error; empty if none is alike."""
    alike = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {alike[0]!r}?" if alike else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message that says something, or the name of its type.

    What Keras writes around an error is left out.
    """
    try:
        text = str(error)
    except Exception:  # a user's class may do anything
        return type(error).__name__
    lines = (one_line(_COLOUR.sub("", line)) for line in text.splitlines())
    return next(
        (line for line in lines if line and not line.startswith("Exception encountered when calling")),
        type(error).__name__,
    )
