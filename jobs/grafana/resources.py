"""What is pushed, what a Grafana has of it, and how the two are compared. Nothing here needs a connection."""

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
class Resource:
    """Something that Grafana should have.

    Attributes:
        kind: one of the names above.
        uid: identifies it within its kind; for a template it is the name, for a policy the label that it matches.
        name: the name that a person reads.
        content: in the form that `normalize` returns.
    """

    kind: str
    uid: str
    name: str
    content: Content

    @property
    def key(self) -> tuple[str, str]:
        """Kind and uid, which identify it among all resources."""
        return self.kind, self.uid

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its content."""
        return fingerprint(self.content)


@dataclass(frozen=True, slots=True)
class Existing:
    """A resource as a Grafana has it.

    Attributes:
        content: as `Resource.content`; None where there is none and `owner` keeps others from making it.
        pushed: the fingerprint of what was last pushed; None where no push made it, or none can be seen.
        changed: whether its content differs from what was pushed.
        owner: `file` or another provenance, where Grafana lets nobody else change it; else empty.
        problem: why it is to be written again although its content is right; else empty.
        handle: identifiers that replacing it needs.
    """

    content: Content | None
    pushed: str | None = None
    changed: bool = True
    owner: str = ""
    problem: str = ""
    handle: Content = field(default_factory=dict)


def fingerprint(content: object) -> str:
    """Return 16 hex digits that are the same for the same content, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def normalize(value: Any) -> Any:
    """Return content as each version of Grafana gives it back: without empty values, whole numbers as integers."""
    if isinstance(value, Mapping):
        kept = {name: normalize(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one not in (None, False, "", 0, {}, [])}
    if isinstance(value, list | tuple):
        return [normalize(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def covers(existing: Any, wanted: Any) -> bool:
    """Return whether `existing` has everything that `wanted` has; it may have more keys."""
    if isinstance(wanted, Mapping):
        return isinstance(existing, Mapping) and all(
            name in existing and covers(existing[name], one) for name, one in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(existing, list) and len(existing) == len(wanted) and all(map(covers, existing, wanted))
    return bool(existing == wanted)


def seconds(duration: str | float) -> float:
    """Return the seconds of a duration as Grafana writes it: 90 for `1m30s`.

    Raises:
        ValueError: it is not a duration.
    """
    text = str(duration)
    if re.fullmatch(r"[\d.]+", text):
        return float(text)
    if not text or _DURATION.sub("", text):
        raise ValueError(f"{text!r} is no duration")
    return float(sum(int(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)))
