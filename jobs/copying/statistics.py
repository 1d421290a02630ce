"""What became of a copy, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Copied:
    """What became of the points of one measurement.

    Attributes:
        measurement: its name.
        points: were read in the source.
        written: were written.
        already_there: were not, since the destination has them.
        refused: were refused by the destination.
        values: the source has: a value is one field of one point.
        found: the destination has of these, counted after the writing; None where nothing was to be written.
        reasons: for which points were refused → how many.
    """

    measurement: str
    points: int = 0
    written: int = 0
    already_there: int = 0
    refused: int = 0
    values: int = 0
    found: int | None = 0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Whether every value of the source is in the destination."""
        return self.found == self.values


def problems(copied: Iterable[Copied]) -> Iterator[str]:
    """What differs, a line each, and what to do about it."""
    copied = list(copied)
    refused = [each for each in copied if each.refused]
    if refused:
        reasons: dict[str, int] = {}
        for each in refused:
            for reason, points in each.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + points
        most = max(reasons, key=lambda reason: reasons[reason])
        names = ", ".join(each.measurement for each in refused)
        points = sum(reasons.values())
        yield f"{points:,} point{'' if points == 1 else 's'} of {names} refused: {most}; {_remedy(most)}"
    lacking = [each for each in copied if not each.refused and each.found is not None and not each.agrees]
    if lacking:
        counts = ", ".join(f"{each.measurement} ({each.found:,} of {each.values:,} values)" for each in lacking)
        yield f"the destination lacks some of {counts}; see that nobody deletes there, and run it again with --again"


def _remedy(reason: str) -> str:
    if "retention" in reason:
        return "lengthen the retention of the bucket and run it again, or leave old points out with --since"
    if "already exists as" in reason or "type conflict" in reason:
        return "the destination has that field with another type: copy into a bucket or file of its own"
    return "the others are copied"
