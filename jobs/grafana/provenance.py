"""The mark that a push leaves in each resource; by it a later push sees whether the resource was changed since.

The mark holds a fingerprint of what was pushed. It is kept where Grafana stores it and nobody reads it: an annotation
that notifications leave out, a comment in a template, a key of the datasource's settings, the message of a dashboard's
version.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any, Final

from gatewatch.jobs.grafana.resources import Content, Existing, fingerprint

ANNOTATION: Final = "__gatewatch__"
SETTING: Final = "gatewatchPush"
TOKEN: Final = "gatewatchToken"  # noqa: S105 - the name of a setting
_MESSAGE: Final = re.compile(r"gatewatch push ([0-9a-f]{16})")
_COMMENT: Final = re.compile(r"\{\{/\* gatewatch push ([0-9a-f]{16}) \*/\}\}")


def message(pushed: str) -> str:
    """Return the message of a dashboard's version with the fingerprint of what was pushed."""
    return f"gatewatch push {pushed}"


def pushed_in(text: object) -> str | None:
    """Return the fingerprint in the message of a dashboard's version; None where no push made the version."""
    match = _MESSAGE.fullmatch(str(text))
    return match[1] if match else None


def commented(text: str, pushed: str) -> str:
    """Return a template with a comment that holds the fingerprint of what was pushed."""
    return f"{text}{{{{/* {message(pushed)} */}}}}"


def uncommented(text: str) -> tuple[str, str | None]:
    """Return a template without that comment, and the fingerprint in it; None where there is none."""
    match = _COMMENT.search(text)
    return _COMMENT.sub("", text).strip(), match[1] if match else None


def token_mark(token: str, salt: str = "") -> str:
    """Return a salted hash of a token. It takes long to compute, so that nobody finds the token by trying."""
    salt = salt or secrets.token_hex(8)
    return f"{salt}.{hashlib.scrypt(token.encode(), salt=salt.encode(), n=2**14, r=8, p=1, dklen=8).hex()}"


def is_token(token: str, mark: object) -> bool:
    """Return whether `mark` was made of this token."""
    salt = str(mark).partition(".")[0]
    return secrets.compare_digest(token_mark(token, salt).encode(), str(mark).encode())


def existing(
    content: Content, pushed: str | None, owner: str = "", *, stored: str = "", problem: str = "", **handle: Any
) -> Existing:
    """Return a resource as it was read, with whether it was changed since the push.

    Args:
        content: without the mark.
        pushed: the fingerprint in the mark; None where there is no mark.
        owner, problem, handle: see `Existing`.
        stored: the fingerprint of what Grafana made of what was pushed, where that may differ.
    """
    changed = pushed is None or fingerprint(content) != (stored or pushed)
    return Existing(content, pushed, changed, owner, problem, handle)
