"""The content of resources in the form in which two are compared, and the mark of a push in it.

A push leaves a mark in each resource; by it a later push sees whether the resource was changed since. The mark holds a
fingerprint of what was pushed, and where Grafana adds to that, one of what Grafana made of it. It is kept where Grafana
stores it and nobody reads it: an annotation that notifications leave out, a comment in a template, a key of the
datasource's settings, the message of a dashboard's version.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, Final, Literal

Content = Mapping[str, Any]
Kind = Literal["datasource", "folder", "dashboard", "template", "contact point", "policy", "rule"]

MARK: Final = "gatewatch push {}"
TOKEN_MARK: Final = "gatewatchToken"  # noqa: S105 - the name of a setting
"""The setting of the datasource that holds the mark of its token."""
_COMPARED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "datasource": ("name", "type", "access", "url", "user", "database", "basicAuth", "jsonData"),
    "folder": ("title",),
    "template": ("template",),
    "contact point": ("name", "type", "settings", "disableResolveMessage"),
}
"""The properties that count; of other kinds all do but those that Grafana adds."""
_PLACES: Final[Mapping[Kind, tuple[str, str]]] = {
    "datasource": ("jsonData", "gatewatchPush"),
    "template": ("", "template"),
    "contact point": ("settings", "message"),
    "rule": ("annotations", "__gatewatch__"),
}
"""Where the mark is: the name of a mapping, or none, and the key in it."""
_MARK: Final = re.compile(r"(?:\{\{/\* )?gatewatch push ([0-9a-f]{16})(?:\.([0-9a-f]{16}))?(?: \*/\}\})?")
_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_DURATION: Final = re.compile(r"(\d+)(ms|[smhdwy])")
_QUERY_DEFAULTS: Final = {"intervalMs": 1000, "maxDataPoints": 43200}
"""What Grafana adds to the query of a rule."""


def content_of(kind: Kind, value: Content) -> Any:
    """Return a resource, as a file or Grafana has it, in the form in which two are compared."""
    if kind == "rule":
        return rule_content(value)
    if kind == "policy":
        return route_content(value)
    if kind == "dashboard":
        return without(value, "id", "version")
    kept = {name: value.get(name) for name in _COMPARED[kind]}
    return normalize({**kept, "jsonData": without(kept.get("jsonData") or {}, TOKEN_MARK)})


def rule_content(rule: Content) -> Any:
    """Return a rule in the form in which two are compared: durations in seconds.

    Args:
        rule: as the API has it, and the `interval` of its group.
    """
    kept = without(rule, "id", "uid", "orgID", "updated", "provenance")
    data = [{**query, "model": _QUERY_DEFAULTS | query["model"]} for query in rule["data"]]
    return normalize({**_in_seconds(kept, "for", "interval", "keep_firing_for"), "data": data})


def route_content(route: Content) -> Any:
    """Return a route and those below it in the form in which two are compared: durations in seconds."""
    below = [route_content(one) for one in route.get("routes") or ()]
    own = _in_seconds(without(route, "provenance"), "group_wait", "group_interval", "repeat_interval")
    return normalize({**own, "routes": below})


def marked(kind: Kind, body: Content, pushed: str) -> dict[str, Any]:
    """Return a resource with the mark of a push; in a text of our own the mark is a comment.

    Args:
        kind: what it is.
        body: as it is sent.
        pushed: the fingerprint; with a dot and that of what Grafana makes of it, where that differs.
    """
    outer, name = _PLACES[kind]
    inner = body.get(outer, {}) if outer else body
    mark = MARK.format(pushed)
    text = f"{inner.get(name, '')}{{{{/* {mark} */}}}}" if name in ("template", "message") else mark
    return {**body, outer: {**inner, name: text}} if outer else {**inner, name: text}


def unmarked(kind: Kind, answer: Content) -> tuple[dict[str, Any], str | None, str | None]:
    """Return a resource without its mark, and the fingerprints in it: of what was pushed, and what became of that."""
    outer, name = _PLACES[kind]
    inner = (answer.get(outer) or {}) if outer else answer
    text = inner.get(name) or ""
    match = _MARK.search(text)
    rest = {**inner, name: _MARK.sub("", text).strip()}
    return {**answer, outer: rest} if outer else rest, *(match.groups() if match else (None, None))


def pushed_in(message: object) -> str | None:
    """Return the fingerprint in the message of a dashboard's version; None where no push made the version."""
    match = _MARK.fullmatch(str(message))
    return match[1] if match else None


def token_mark(token: str, salt: str = "") -> str:
    """Return a salted hash of a token. It takes long to compute, so that nobody finds the token by trying."""
    salt = salt or secrets.token_hex(8)
    return f"{salt}.{hashlib.scrypt(token.encode(), salt=salt.encode(), n=2**14, r=8, p=1, dklen=8).hex()}"


def is_token(token: str, mark: object) -> bool:
    """Return whether `mark` was made of this token."""
    salt = str(mark).partition(".")[0]
    return secrets.compare_digest(token_mark(token, salt).encode(), str(mark).encode())


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


def without(content: Content, *names: str) -> dict[str, Any]:
    """Return content without these keys."""
    return {name: value for name, value in content.items() if name not in names}


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


def _in_seconds(content: Content, *names: str) -> dict[str, Any]:
    return {**content, **{name: seconds(content[name]) for name in names if content.get(name)}}
