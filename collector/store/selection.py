"""Which points to read, and the tags that tell one series of points from another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypedDict

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.schema import LOOK, LOOKED_AT
from gatewatch.collector.text import safe_repr
from gatewatch.collector.times import Time, nanoseconds

Tags = Mapping[str, str]
"""Name → value."""
Reduction = Literal["min", "max", "mean"]
"""What a number stands for of the points of a span of time: their smallest value, their largest, or their mean."""
SeriesKey = tuple[tuple[str, str], ...]
"""The tags of a series, sorted by name: hashable, as the key of a mapping."""


def series_of(tags: Tags) -> SeriesKey:
    """Return the tags that have a value, sorted by name."""
    return tuple(sorted((name, value) for name, value in tags.items() if value))


class Selection(NamedTuple):
    """Which points to read.

    Attributes:
        measurement: their measurement.
        tags: tag → the value that the points have; empty: the points must not have the tag.
        start: earliest time, in nanoseconds since the Unix epoch; None: no bound.
        stop: the time before which the points lie, likewise.
        exactly: whether the points have no other tags than these.
        at_least: a field that is a number, and the least value of it that the points have; None: whatever it is.
    """

    measurement: str
    tags: Tags
    start: int | None = None
    stop: int | None = None
    exactly: bool = False
    at_least: tuple[str, float] | None = None


class Bounds(TypedDict, total=False):
    """Which points to read; see `Store.read`."""

    run: str | None
    start: Time | None
    stop: Time | None
    tags: Tags | None


def without_reference_look(measurement: str, tags: Tags | None) -> Tags:
    """Return the tags to select by, so that points of a reference look are left out unless the tag `look` is given.

    Whoever reads the gates of a run means its windows: a mixture of both would be a wrong number everywhere.

    Args:
        measurement: of the points.
        tags: that they must have.
    """
    return {LOOK: "", **(tags or {})} if measurement in LOOKED_AT else dict(tags or {})


def require_utf8(names: Tags) -> None:
    """Check names that are looked for.

    Args:
        names: what each is of → name.

    Raises:
        ConfigError: one has a lone surrogate, as the bytes of another encoding become; no store can hold it.
    """
    for what, name in names.items():
        if any("\ud800" <= c <= "\udfff" for c in f"{what}{name}"):
            raise ConfigError(f"{what}={safe_repr(name)}: is not UTF-8; see the terminal's encoding")


def select(
    measurement: str,
    run: str | None = None,
    start: Time | None = None,
    stop: Time | None = None,
    tags: Tags | None = None,
) -> Selection:
    """Return the selection for the arguments of a caller.

    Raises:
        ConfigError: `start` or `stop` is not a time, or a name is not of UTF-8, and so is in no store.
    """
    wanted = dict(tags or {}) | ({} if run is None else {"run": run})
    require_utf8({"measurement": measurement, **wanted})
    first, last = (None if time is None else nanoseconds(time) for time in (start, stop))
    return Selection(measurement, wanted, first, last)


def bucket_width(first: int, last: int, buckets: int) -> int:
    """Return the width of equal buckets, in nanoseconds, that cover the times from the first to the last."""
    return max(1, -(-(last - first + 1) // buckets))
