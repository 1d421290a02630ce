"""Counts of a copy, and the problems that they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Copied:
    """Counts of the points of one measurement that were copied.

    Attributes:
        measurement: its name.
        points: number of points that were read from the source.
        written: of these, points that were written.
        already_there: of these, points that the destination had already.
        refused: of these, points that the destination refused.
        values: number of values that were read; a value is one field of one point.
        found: of these, values that the destination has after the writing; None in a dry run.
        reasons: reason of a refusal → number of points.
    """

    measurement: str
    points: int = 0
    written: int = 0
    already_there: int = 0
    refused: int = 0
    values: int = 0
    found: int | None = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def refuse(self, reasons: Counter[str]) -> None:
        """Count points as refused that were counted as written; `reasons` is reason → number of points."""
        self.written -= reasons.total()
        self.refused += reasons.total()
        self.reasons = dict(Counter(self.reasons) + reasons)

    @property
    def agrees(self) -> bool:
        """Whether the destination has every value of the source."""
        return self.found == self.values


def problems(copied: Iterable[Copied]) -> Iterator[str]:
    """Yield one line per difference between source and destination: the difference, and what to do about it."""
    copied = list(copied)
    if refused := [each for each in copied if each.refused]:
        reasons: Counter[str] = Counter()
        for each in refused:
            reasons.update(each.reasons)
        ((most, _),) = reasons.most_common(1)
        names, points = ", ".join(each.measurement for each in refused), reasons.total()
        yield f"{points:,} point{'' if points == 1 else 's'} of {names} refused: {most}; {_remedy(most)}"
    if lacking := [each for each in copied if not each.refused and each.found is not None and not each.agrees]:
        counts = ", ".join(f"{each.measurement} ({each.found:,} of {each.values:,} values)" for each in lacking)
        yield f"the destination lacks some of {counts}; see that nobody deletes there, and run it again with --again"


def _remedy(reason: str) -> str:
    if "retention" in reason:
        return "lengthen the retention of the bucket and run it again, or leave old points out with --since"
    if "already exists as" in reason or "type conflict" in reason:
        return "the destination has that field with another type: copy into a bucket or file of its own"
    return "the others are copied"
