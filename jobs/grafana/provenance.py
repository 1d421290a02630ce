"""The trace that a push leaves in each thing, by which a later one knows whether it is still as it was pushed.

It travels where Grafana keeps it and nobody reads it: an annotation that is not shown in notifications, a comment of a
template, a key of the datasource's settings, the message of a dashboard's version.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from gatewatch.jobs.grafana.resources import Content, Found, fingerprint

ANNOTATION: Final = "__gatewatch__"
SETTING: Final = "gatewatchPush"
TOKEN: Final = "gatewatchToken"  # noqa: S105 - the name of a setting
_COMMENT: Final = re.compile(r"\{\{/\* gatewatch push ([0-9a-f]{16}) \*/\}\}")
_MESSAGE: Final = re.compile(r"gatewatch push ([0-9a-f]{16})")


def message(print_: str) -> str:
    """Of a dashboard's version."""
    return f"gatewatch push {print_}"


def pushed_by(text: object) -> str | None:
    """The fingerprint in the message of a dashboard's version; None where no push made it."""
    found = _MESSAGE.fullmatch(str(text))
    return found[1] if found else None


def commented(text: str, print_: str) -> str:
    """A template with the trace."""
    return f"{text}{{{{/* gatewatch push {print_} */}}}}"


def uncommented(text: str) -> tuple[str, str | None]:
    """A template without the trace, and the fingerprint in it."""
    found = _COMMENT.search(text)
    return _COMMENT.sub("", text).strip(), found[1] if found else None


def token_mark(token: str, salt: str = "") -> str:
    """Of a token, a trace by which it is known again, and from which nobody finds it: made slowly, with a salt."""
    salt = salt or secrets.token_hex(8)
    return f"{salt}.{hashlib.scrypt(token.encode(), salt=salt.encode(), n=2**14, r=8, p=1, dklen=8).hex()}"


def is_token(token: str, mark: object) -> bool:
    """Whether it is the token that left this trace."""
    salt = str(mark).partition(".")[0]
    return secrets.compare_digest(token_mark(token, salt).encode(), str(mark).encode())


def annotated(annotations: Mapping[str, str], print_: str, stored: str) -> dict[str, str]:
    """A rule's annotations with the trace.

    Args:
        print_: of the rule as we have it.
        stored: of the rule as Grafana gives it back, which may have added to it.
    """
    return {**annotations, ANNOTATION: f"{print_}.{stored}"}


def read_rule(content: Content, mark: str | None, owner: str, handle: Content) -> Found:
    """A rule as it is found.

    Args:
        content: without the trace.
        mark: the trace; None where there is none.
    """
    print_, _, stored = (mark or "").partition(".")
    return Found(content, print_ or None, fingerprint(content) != stored, owner, handle=handle)


def read(content: Content, print_: str | None, owner: str = "", broken: str = "", **handle: Any) -> Found:
    """Another thing as it is found, without its trace, and the fingerprint in that."""
    return Found(content, print_, print_ is None or fingerprint(content) != print_, owner, broken, handle)
