"""What a push is going to do, decided from what is wanted and what a Grafana has, without a connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gatewatch.jobs.grafana.content import Content, Kind, content_of, covers, fingerprint, unmarked

FILES: Final = "file provisioning owns it; change it there"


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that Grafana should have.

    Attributes:
        kind: what it is.
        uid: identifies it within its kind; for a template it is the name, for a policy the label that it matches.
        name: the name that a person reads.
        content: in the form in which two are compared.
        body: as it is sent; may hold a secret.
    """

    kind: Kind
    uid: str
    name: str
    content: Content
    body: Content = field(default_factory=dict, repr=False)

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
        answer: what Grafana answered.
    """

    content: Content | None
    pushed: str | None = None
    changed: bool = True
    owner: str = ""
    problem: str = ""
    answer: Any = field(default=None, repr=False)


def as_existing(kind: Kind, answer: Content, problem: str = "") -> Existing:
    """Return a resource with a mark as Grafana answered it, and whether it was changed since the push."""
    value, pushed, stored = unmarked(kind, answer)
    content = content_of(kind, value)
    changed = pushed is None or fingerprint(content) != (stored or pushed)
    owner = "file" if answer.get("readOnly") else answer.get("provenance") or ""
    return Existing(content, pushed, changed, owner, problem, answer)


@dataclass(frozen=True, slots=True)
class Step:
    """What a push does with one resource.

    Attributes:
        verb: `kept` where it stays as it is on purpose, `blocked` where it should be made and cannot be.
        why: the reason; empty where the verb says enough.
    """

    resource: Resource
    verb: Literal["create", "update", "unchanged", "kept", "blocked"]
    why: str = ""
    existing: Existing | None = None

    @property
    def writes(self) -> bool:
        """Whether the step changes Grafana."""
        return self.verb in ("create", "update")


def plan(
    wanted: Sequence[Resource], existing: Mapping[tuple[str, str], Existing], *, overwrite: bool = False
) -> list[Step]:
    """Return a step for each wanted resource, in their order.

    Args:
        wanted: what Grafana should have.
        existing: what it has, by `Resource.key`.
        overwrite: whether to replace what a user changed.
    """
    return [_step(resource, existing.get(resource.key), overwrite) for resource in wanted]


def _step(resource: Resource, existing: Existing | None, overwrite: bool) -> Step:
    if existing is None:
        return Step(resource, "create")
    if existing.owner:
        why = FILES if existing.owner == "file" else f"it was provisioned ({existing.owner}); only that can change it"
        return Step(resource, "blocked" if existing.content is None else "kept", why, existing)
    # Keys that Grafana added to what was pushed do not count.
    same = existing.content == resource.content or (
        existing.pushed == resource.fingerprint and (not existing.changed or covers(existing.content, resource.content))
    )
    replace = overwrite or not existing.changed
    if same and not (replace and existing.problem):
        return Step(resource, "unchanged", existing=existing)
    if replace:
        why = existing.problem if same else "over your change" if existing.changed else ""
        return Step(resource, "update", why, existing)
    whose = "changed by you" if existing.pushed else "yours"
    return Step(resource, "kept", f"{whose}; --overwrite replaces it, or delete it and push again", existing)
