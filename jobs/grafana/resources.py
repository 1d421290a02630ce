"""What is pushed, what is found in a Grafana, and how the two are compared: data without a connection."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Content = Mapping[str, Any]

DATASOURCE, FOLDER, DASHBOARD = "datasource", "folder", "dashboard"
TEMPLATE, CONTACT_POINT, POLICY, RULE = "template", "contact point", "policy", "rule"

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_DURATION: Final = re.compile(r"(\d+)(ms|[smhdwy])")


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing that Grafana should have.

    Attributes:
        kind: one of the names above.
        uid: what it is found by; a template's is its name, a policy's the label that it matches.
        name: what a person reads.
        content: in the form that `plain` gives.
    """

    kind: str
    uid: str
    name: str
    content: Content

    @property
    def key(self) -> tuple[str, str]:
        """What it is found by among all things."""
        return self.kind, self.uid

    @property
    def print(self) -> str:
        """The fingerprint of its content."""
        return fingerprint(self.content)


@dataclass(frozen=True, slots=True)
class Found:
    """The same thing as a Grafana has it.

    Attributes:
        content: as `Thing.content`; None where all that is known is who owns its place.
        pushed: the fingerprint of what was last pushed; None where it never was, or does not say.
        touched: whether it is not as it was pushed.
        owner: `file` or another provenance, where Grafana lets nobody else change it; else empty.
        broken: why it is to be written again although its content is right, such as that it does not work.
        handle: what replacing it takes.
    """

    content: Content | None
    pushed: str | None = None
    touched: bool = True
    owner: str = ""
    broken: str = ""
    handle: Content = field(default_factory=dict)


def fingerprint(content: object) -> str:
    """Of a content: the same for the same content whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Content as all versions of Grafana give it back: without what is empty, and whole numbers without a fraction."""
    if isinstance(value, Mapping):
        kept = {name: plain(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if not _empty(one)}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def covers(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is found, whatever else is."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(n in found and covers(found[n], one) for n, one in wanted.items())
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(covers, found, wanted))
    return bool(found == wanted)


def seconds(duration: str | float) -> float:
    """Of a duration as Grafana writes it: `1m30s` is 90.

    Raises:
        ValueError: it is none.
    """
    text = str(duration)
    if re.fullmatch(r"[\d.]+", text):
        return float(text)
    if not _DURATION.sub("", text) == "" or not text:
        raise ValueError(f"{text!r} is no duration")
    return float(sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)))


def _empty(value: object) -> bool:
    return value is None or value is False or value in ("", 0) or (isinstance(value, dict | list) and not value)
