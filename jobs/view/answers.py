"""What the server answers to a request: plain values, before they are sent."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    # Plotly makes an empty style element, which it fills from its own script, and sets the attribute `style`.
    "style-src-elem 'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='; style-src-attr 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The pages may load nothing but what this server gives, and run no script but its files."""
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What each answer says."""
_SHORT: Final = 1_000
"""Bytes that are not worth compressing."""


@dataclass(frozen=True)
class Answer:
    """An answer to a request.

    Attributes:
        body: what is sent.
        kind: its content type.
        status: of HTTP.
        headers: of this answer, beside those that each has.
    """

    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(value: Any, status: int = 200) -> Answer:
    """Return values as JSON; numbers that are not finite become null."""
    return Answer(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), "application/json", status)


def problem(sentence: str, status: int) -> Answer:
    """Return a sentence that says what is wrong and what to do, for the page to show."""
    return json_answer({"problem": sentence}, status)


def moved(address: str, **headers: str) -> Answer:
    """Return an answer that leads to another address of this server."""
    return Answer(status=303, headers={"Location": address, **headers})


def with_tag(answer: Answer, known: str | None) -> Answer:
    """Give an answer a tag of its content, and leave the content out where the browser knows it already.

    Args:
        answer: a whole one.
        known: the header `If-None-Match` of the request.
    """
    if answer.status != 200:
        return answer
    tag = f'"{hashlib.blake2b(answer.body, digest_size=12).hexdigest()}"'
    headers = {"Cache-Control": "no-cache", **answer.headers, "ETag": tag}
    same = known is not None and tag in (each.strip().removeprefix("W/") for each in known.split(","))
    return replace(answer, headers=headers) if not same else replace(answer, status=304, body=b"", headers=headers)


def compressed(answer: Answer, accepted: str | None) -> Answer:
    """Compress an answer where the browser takes that, and it is worth it."""
    names = [name.partition(";")[0].strip() for name in (accepted or "").split(",")]
    if "gzip" not in names or len(answer.body) < _SHORT:
        return answer
    headers = {**answer.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return replace(answer, body=gzip.compress(answer.body, 1, mtime=0), headers=headers)
