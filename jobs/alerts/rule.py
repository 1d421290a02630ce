"""What a rule is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

Severity = Literal["critical", "warning"]
Measure = Literal["value", "not_finite", "share_of_units", "frozen", "rise", "growth", "times_median", "silence"]


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """When to alert.

    It fires for a series (a measurement's points of the same tags) once `for_captures` of its last `within` captures
    lie beyond `above` or `below`, and is over once none of the last `within` lies beyond `recovery`.

    Attributes:
        name: of the rule, and of its section in the runbook.
        measurement, field: what is looked at.
        summary: what is wrong, in a few words.
        remedy: what to do first, in a sentence.
        where: tag → the values of it that count; any where it is not named.
        measure: what of the field is compared: its `value`; of gates and parameters the values that are `not_finite`;
            of `dead_units` the `share_of_units`; of `update_norm` that of a whole layer, while another layer moves
            (`frozen`); by how much a counter did `rise`; its `growth` from heartbeat to heartbeat; a multiple of its
            own median so far (`times_median`); or how long there was `silence`, as `watch` has it.
        quantity: what is compared, in words.
        above, below: the thresholds.
        recovery: how far a value must come back; the threshold where None.
        for_captures, within: how many captures of how many.
        after_inside: only for a series that has been within the thresholds before.
        lasting: whether it is worth telling only while it lasts, not where it was over when it was seen.
        severity: critical, or warning.
        runbook: where the section is, where it is not in Gatewatch's own runbook.
    """

    name: str
    measurement: str
    field: str
    summary: str
    remedy: str = ""
    where: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    measure: Measure = "value"
    quantity: str = ""
    above: float | None = None
    below: float | None = None
    recovery: float | None = None
    for_captures: int = 1
    within: int = 1
    after_inside: bool = False
    lasting: bool = False
    severity: Severity = "warning"
    runbook: str | None = None

    def beyond(self, value: float, *, recovering: bool = False) -> bool:
        """Whether a value lies past a threshold; for a rule that fires already, past the one to recover."""
        above = self.recovery if recovering and self.recovery is not None and self.above is not None else self.above
        below = self.recovery if recovering and self.recovery is not None and self.below is not None else self.below
        return (above is not None and value > above) or (below is not None and value < below)

    def threshold(self, value: float) -> float:
        """The threshold that a value is compared with: the one that it lies beyond, or the only one."""
        if self.above is None or (self.below is not None and value < self.below):
            return self.below if self.below is not None else 0.0
        return self.above

    def concerns(self, tags: Mapping[str, str]) -> bool:
        """Whether a series with these tags is looked at."""
        return all(tags.get(name) in values for name, values in self.where.items())
