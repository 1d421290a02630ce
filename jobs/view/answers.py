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
    "style-src 'self' 'unsafe-inline'; "  # Plotly makes style elements and sets the attribute `style`
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


def tag_of(content: bytes) -> str:
    """Return the tag (ETag) that stands for some content."""
    return f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'


def knows(known: str | None, tag: str) -> bool:
    """Return whether a browser has what a tag stands for, by the header `If-None-Match` of its request."""
    return tag in (each.strip().removeprefix("W/") for each in (known or "").split(","))


def unchanged(tag: str) -> Answer:
    """Return the answer to a browser that has what a tag stands for."""
    return Answer(status=304, headers={"ETag": tag})


def with_tag(answer: Answer, known: str | None) -> Answer:
    """Give an answer a tag of its content, where it has none, and leave out content that the browser has already.

    Args:
        answer: a whole one, or none of the content.
        known: the header `If-None-Match` of the request.
    """
    if answer.status not in (200, 304):
        return answer
    tag = answer.headers.get("ETag") or tag_of(answer.body)
    headers = {"Cache-Control": "no-cache", **answer.headers, "ETag": tag}
    if answer.status == 304 or knows(known, tag):
        return replace(answer, status=304, body=b"", headers=headers)
    return replace(answer, headers=headers)


def compressed(answer: Answer, accepted: str | None) -> Answer:
    """Compress an answer where the browser takes that, and it is worth it."""
    names = [name.partition(";")[0].strip() for name in (accepted or "").split(",")]
    if "gzip" not in names or len(answer.body) < _SHORT or "Content-Encoding" in answer.headers:
        return answer
    headers = {**answer.headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return replace(answer, body=gzip.compress(answer.body, 1, mtime=0), headers=headers)
