"""What is still to be done, from the desired state and what is there: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Permissions = frozenset[tuple[str, str]]
"""What a token may do: (`read` or `write`, the id of a bucket)."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket that is there: its id, and how many seconds it keeps points; 0: for ever."""

    id: str
    retention_s: int


@dataclass(frozen=True, slots=True)
class Task:
    """A task that is there."""

    id: str
    flux: str


@dataclass(frozen=True, slots=True)
class Grant:
    """An authorization that is there: what its token may do. InfluxDB knows the token itself by its hash only."""

    id: str
    permissions: Permissions
    active: bool


@dataclass(frozen=True, slots=True)
class MakeBucket:
    """Make a bucket."""

    name: str
    retention_s: int


@dataclass(frozen=True, slots=True)
class KeepFor:
    """Change how long a bucket keeps points."""

    name: str
    id: str
    before_s: int
    retention_s: int


@dataclass(frozen=True, slots=True)
class MakeTask:
    """Make the task, or where it has an `id` give it this Flux."""

    flux: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class MakeToken:
    """Make a token and put it into its file; authorizations of the same purpose go first."""

    name: str
    permissions: Permissions
    stale: Sequence[str]


def bucket_steps(wanted: Mapping[str, int], there: Mapping[str, Bucket]) -> list[MakeBucket | KeepFor]:
    """Return what is to be done with the buckets.

    Args:
        wanted: name → seconds that it keeps points.
        there: name → what it is like.
    """
    steps: list[MakeBucket | KeepFor] = []
    for name, seconds in wanted.items():
        if name not in there:
            steps.append(MakeBucket(name, seconds))
        elif there[name].retention_s != seconds:
            steps.append(KeepFor(name, there[name].id, there[name].retention_s, seconds))
    return steps


def task_steps(flux: str, there: Sequence[Task]) -> list[MakeTask]:
    """Return what is to be done with the task. One that somebody made inactive stays so."""
    if not there:
        return [MakeTask(flux)]
    return [MakeTask(flux, task.id) for task in there[:1] if task.flux.strip() != flux.strip()]


def token_permissions(bucket: str, history: str) -> dict[str, Permissions]:
    """Return the least permissions of each token: its name → permissions, from the ids of the buckets."""
    return {
        "collector": frozenset({("write", bucket)}),
        "jobs": frozenset({("read", bucket), ("write", bucket)}),
        "grafana": frozenset({("read", bucket), ("read", history)}),
    }


def token_steps(
    wanted: Mapping[str, Permissions], there: Mapping[str, Sequence[Grant]], accepted: frozenset[str]
) -> list[MakeToken]:
    """Return what is to be done with the tokens.

    Args:
        wanted: name → what it may do.
        there: name → the authorizations that were made for it.
        accepted: the names of those whose file holds a token that the server takes.
    """
    steps = []
    for name, permissions in wanted.items():
        grants = there.get(name, ())
        whole = [grant for grant in grants if grant.active and grant.permissions == permissions]
        if name not in accepted or not whole or len(grants) > 1:
            steps.append(MakeToken(name, permissions, [grant.id for grant in grants]))
    return steps
