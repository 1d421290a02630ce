"""What a push is going to do, decided from what is wanted and what exists, without a connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gatewatch.jobs.grafana.resources import Existing, Resource, covers

Verb = Literal["create", "update", "unchanged", "kept", "blocked"]

KEPT = "--overwrite replaces it, or delete it and push again"
FILES = "file provisioning owns it; change it there"


@dataclass(frozen=True, slots=True)
class Step:
    """What a push does with one resource.

    Attributes:
        verb: `kept` where it stays as it is on purpose, `blocked` where it should be made and cannot be.
        why: the reason; empty where the verb says enough.
    """

    resource: Resource
    verb: Verb
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
    replace = overwrite or not existing.changed
    if _same(resource, existing):
        if existing.problem and replace:
            return Step(resource, "update", existing.problem, existing)
        return Step(resource, "unchanged", existing=existing)
    if replace:
        return Step(resource, "update", "over your change" if existing.changed else "", existing)
    return Step(resource, "kept", f"{'changed by you' if existing.pushed else 'yours'}; {KEPT}", existing)


def _same(resource: Resource, existing: Existing) -> bool:
    """Whether it is as wanted; keys that Grafana added to what was pushed do not count."""
    return existing.content == resource.content or (
        existing.pushed == resource.fingerprint and (not existing.changed or covers(existing.content, resource.content))
    )
