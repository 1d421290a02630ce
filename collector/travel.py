"""How far a parameter has moved since its latest record in `layer_updates`, whatever has moved it.

A step of an optimizer is only one cause. A checkpoint that is loaded, a layer that is reset and weights that are edited
in place between two captures move a parameter too, and nothing else shows it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from gatewatch.collector.arrays import Array
from gatewatch.collector.reach import Reach, travel_limit
from gatewatch.collector.schema import FieldValue
from gatewatch.collector.updates import Arrays, Name, change, shapes, size_of, tally

T = TypeVar("T")


class Moments(NamedTuple):
    """The second moments v that an optimizer holds for one parameter: v_t = decay·v_{t−1} + (1 − decay)·g².

    Since g² is never negative, `total` cannot fall below decay^k times what it was k steps earlier, but for rounding.

    Attributes:
        total: the sum of v over the parameter, in double precision.
        decay: β₂ of Adam, α or ρ of RMSprop.
    """

    total: float
    decay: float


class OptimizerFacts(NamedTuple):
    """What an optimizer says of one parameter after a step; None where it says nothing, or is of an unknown kind.

    Attributes:
        moments: its second moments.
        steps: how many it has made with the parameter, since it began or was given an earlier state.
        reach: how far a step can move the parameter.
    """

    moments: Moments | None = None
    steps: int | None = None
    reach: Reach | None = None


NO_FACTS: Final = OptimizerFacts()


class Travels(Generic[T]):
    """The parameters as they were when they were last recorded, and how many steps had been counted by then.

    It holds one copy of the watched parameters. Parameters that are measured and wait for their capture are held beside
    it: they are forgotten, or take the place of the copy, when that capture is made.

    `T` is what a framework's adapter counts steps with.
    """

    def __init__(self) -> None:
        self._recorded: dict[Name, tuple[Sequence[Array], T]] = {}
        self._measured: dict[Name, tuple[Sequence[Array], T]] = {}

    def latest(self, name: Name) -> tuple[Sequence[Array], T] | None:
        """Return values and count of a parameter at its latest record; None where it was not recorded yet."""
        return self._recorded.get(name)

    def measured(self, name: Name, values: Sequence[Array], count: T) -> None:
        """Hold what a parameter is now, until `recorded()` says whether that is written.

        Args:
            name: of the parameter.
            values: copies that nothing else changes.
            count: of steps so far.
        """
        self._measured[name] = values, count

    def recorded(self, names: Collection[Name]) -> None:
        """Count from what was measured last of these parameters; forget what was measured of others."""
        self._recorded.update({name: one for name, one in self._measured.items() if name in names})
        self._measured = {}

    def keep_only(self, names: Collection[Name]) -> None:
        """Forget all other parameters: the model has them no longer, or does not train them."""
        self._recorded = {name: one for name, one in self._recorded.items() if name in names}
        self._measured = {name: one for name, one in self._measured.items() if name in names}


def travel_fields(
    before: Arrays | None,
    after: Arrays,
    *,
    steps: int | None = None,
    rate_sum: float | None = None,
    facts: OptimizerFacts = NO_FACTS,
) -> dict[str, FieldValue]:
    """Return the fields of `layer_updates` that say what happened to a parameter since its latest record.

    - travel: ‖after − before‖, over the values that are finite in both;
    - travel_steps: how many steps its optimizer has made between the two;
    - rate_sum: the sum of the learning rates of these steps;
    - travel_limit: how far these steps can have moved it, whatever the gradients were; see `reach`;
    - moment_sum, moment_decay: of the optimizer, after the latest step;
    - step_count: how many steps the optimizer itself has counted with this parameter, its earlier state included.

    What is not known has no field. Nor has `travel` where the two differ in shape, and `moment_sum` where a moment is
    not finite: without it the sum would seem to have fallen.

    Args:
        before: the weights at the latest record; None where there is none.
        after: the weights now.
        steps, rate_sum: since that record; None where they are not known.
        facts: of the optimizer that has made all of these steps.
    """
    fields: dict[str, FieldValue] = {}
    if before is not None:
        travel = change(before, after).norm if shapes(before) == shapes(after) else None
        known = {"travel": travel, "travel_steps": steps, "rate_sum": rate_sum}
        fields |= {name: value for name, value in known.items() if value is not None and math.isfinite(value)}
        if facts.reach is not None and steps is not None and rate_sum is not None and travel is not None:
            norm = tally(before).norm or 0.0
            limit = travel_limit(facts.reach, steps=steps, rate_sum=rate_sum, size=size_of(after), norm=norm)
            fields |= {"travel_limit": limit} if math.isfinite(limit) else {}
    if facts.steps is not None:
        fields["step_count"] = facts.steps
    moments = facts.moments
    if moments is not None and math.isfinite(moments.total):
        fields |= {"moment_sum": moments.total, "moment_decay": moments.decay}
    return fields
