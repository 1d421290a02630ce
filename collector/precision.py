"""How many of a parameter's values a number format of lower precision holds exactly.

A trained value ends in random digits: of those that half precision leaves out, all are zero once in 2¹³ values. So many
such values were rounded. One step of an optimizer afterwards, and they end in random digits again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.arrays import Array
from gatewatch.collector.schema import FieldValue

FEWEST: Final = 8
"""Values that must count: of fewer, some are round numbers that somebody has set."""
_SAMPLE: Final = 4096
"""Values of an array that are looked at, evenly spaced."""
_LEFT_OUT: Final[dict[int, tuple[Any, int]]] = {4: (np.uint32, 13), 8: (np.uint64, 29)}
"""Bytes of a value → an integer as long, and how many bits of the significand the next lower format leaves out: 11 of
24 stay from single to half precision (bfloat16 keeps 8, which are among them), 24 of 53 from double to single."""


def rounded_share(values: Array | Sequence[Array]) -> float | None:
    """Return the share of values that the next lower precision holds exactly; None where too few of them can tell.

    Zeros do not count, since weights are pruned, nor do the largest, since weights are cut off at some round number.
    Values of half precision are all held.

    Args:
        values: of one parameter, in one array or several; at most 4,096 of each array are looked at.
    """
    counted = rounded = 0
    for array in [values] if isinstance(values, np.ndarray) else values:
        flat = array.reshape(-1)
        sample = np.ascontiguousarray(flat[:: max(1, -(-flat.size // _SAMPLE))])
        sample = sample if sample.dtype.itemsize >= 4 else sample.astype(np.float32)
        if sample.dtype.itemsize not in _LEFT_OUT:
            return None
        integer, bits = _LEFT_OUT[sample.dtype.itemsize]
        counts = _counts(np.abs(sample))
        counted += int(counts.sum())
        rounded += int(np.count_nonzero(sample.view(integer)[counts] & integer((1 << bits) - 1) == 0))
    return rounded / counted if counted >= FEWEST else None


def _counts(size: Array) -> NDArray[np.bool_]:
    finite = np.isfinite(size)
    largest = size.max(where=finite, initial=0.0)
    counts: NDArray[np.bool_] = finite & (size > 0) & (size < largest)
    return counts


class RoundedBefore:
    """The shares of rounded values that parameters had before the copy that their record compares with, until then.

    A training may begin with a checkpoint of low precision: the first steps end that, and they lie before the step that
    is recorded first. And a callback may round weights between the copy and the step.
    """

    def __init__(self) -> None:
        self._shares: dict[tuple[str, str], float] = {}
        self._has_begun = False

    def begin(self, parameters: Iterable[tuple[tuple[str, str], Sequence[Array]]]) -> None:
        """Note the shares of all parameters, if that has not been done yet.

        Args:
            parameters: name of each, and its values.
        """
        if not self._has_begun:
            self._has_begun = True
            self.note(parameters)

    def note(self, parameters: Iterable[tuple[tuple[str, str], Sequence[Array]]]) -> None:
        """Note the shares of all parameters, where they are larger than those that wait for a record.

        Args:
            parameters: name of each, and its values.
        """
        for name, values in parameters:
            if (share := rounded_share(values)) is not None:
                self._shares[name] = max(share, self._shares.get(name, 0.0))

    def added(self, name: tuple[str, str], fields: Mapping[str, FieldValue]) -> Mapping[str, FieldValue]:
        """Return the fields of a parameter's record, with the larger share of the two where it has one."""
        share = self._shares.get(name)
        if share is None or "rounded_share" not in fields:
            return fields
        return {**fields, "rounded_share": max(share, float(fields["rounded_share"]))}

    def recorded(self, names: Collection[tuple[str, str]]) -> None:
        """Forget the parameters that have a record now."""
        self._shares = {name: share for name, share in self._shares.items() if name not in names}
