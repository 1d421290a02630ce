"""What a push would do: from what is wanted and what is found, without a connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gatewatch.jobs.grafana.resources import Found, Thing, covers

Verb = Literal["create", "update", "unchanged", "kept", "blocked"]

KEPT = "--overwrite replaces it, or delete it and push again"
FILES = "file provisioning owns it; change it there"


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of one thing.

    Attributes:
        verb: `kept` where it is left as it is on purpose, `blocked` where it should have been made and cannot be.
        why: in words; empty where the verb says it all.
    """

    thing: Thing
    verb: Verb
    why: str = ""
    found: Found | None = None

    @property
    def writes(self) -> bool:
        """Whether anything is to be done."""
        return self.verb in ("create", "update")


def plan(wanted: Sequence[Thing], found: Mapping[tuple[str, str], Found], *, overwrite: bool = False) -> list[Step]:
    """A step for each thing, in their order."""
    return [_step(thing, found.get(thing.key), overwrite) for thing in wanted]


def _step(thing: Thing, found: Found | None, overwrite: bool) -> Step:
    if found is None:
        return Step(thing, "create")
    if found.content is None:
        return Step(thing, "blocked", _owned(found.owner), found)
    if found.owner:
        return Step(thing, "kept", _owned(found.owner), found)
    if _same(thing, found):
        mended = found.broken and (overwrite or not found.touched)
        return Step(thing, "update", found.broken, found) if mended else Step(thing, "unchanged", found=found)
    if overwrite or not found.touched:
        return Step(thing, "update", "over your change" if found.touched else "", found)
    return Step(thing, "kept", f"{'changed by you' if found.pushed else 'yours'}; {KEPT}", found)


def _same(thing: Thing, found: Found) -> bool:
    if found.content == thing.content:
        return True
    return found.pushed == thing.print and (not found.touched or covers(found.content, thing.content))


def _owned(owner: str) -> str:
    return FILES if owner == "file" else f"it was provisioned ({owner}), and only that can change it"
