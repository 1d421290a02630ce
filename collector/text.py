"""Text of unknown origin (errors, names, values of a user's classes) as one safe line for logs and points."""

from __future__ import annotations

import re
from typing import Final

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


def one_line(text: object, limit: int | None = None) -> str:
    """Return text as one line without control characters.

    Args:
        text: anything; where its `str` raises, the line names its type.
        limit: characters that are kept; a longer line is cut and ends in an ellipsis.
    """
    try:
        shown = str(text)
    except Exception:  # a user's class may do anything
        return f"a {type(text).__name__} that cannot be shown"
    line = " ".join("".join(c if c.isprintable() else " " for c in shown).split())
    return line if limit is None or len(line) <= limit else f"{line[:limit]}…"


def safe_repr(value: object) -> str:
    """Return `repr(value)` as one line, or the name of its type where `repr` raises."""
    try:
        return one_line(repr(value))
    except Exception:  # a user's class may do anything
        return f"a {type(value).__name__} that cannot be shown"


def describe_exception(error: BaseException) -> str:
    """Return the type and the message of an exception as one line of at most 1,024 characters."""
    text = one_line(error)
    return f"{type(error).__name__}: {text}"[:1024] if text else type(error).__name__


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
