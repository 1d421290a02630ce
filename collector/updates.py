"""Statistics of one parameter and its step: pure functions, arrays in, numbers out; and the protocol of what measures.

Values that are not finite are counted, and everything else is taken over the finite rest.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from gatewatch.collector.arrays import Array
from gatewatch.collector.names import clean_name
from gatewatch.collector.precision import rounded_share
from gatewatch.collector.schema import LAYER_UPDATES, FieldValue, Point

Arrays = Array | Sequence[Array]
"""One parameter: an array of any shape, or several (torch keeps two biases for one layer)."""

_PART: Final = 8192
"""So many values are taken at once: they stay in the cache, and BLAS starts no threads for them."""
_FAINT: Final = 1e-28
"""Below this sum of squares of a part, squares of single precision may have vanished from it."""
_ALIKE: Final = 0.01
"""A learning rate that differs by no more before and after a step is known well enough."""


Name = tuple[str, str]
"""A parameter: the path of its layer, and kernel, recurrent, bias or projection."""
Measured = Mapping[Name, Mapping[str, FieldValue]]
"""Parameter → the fields of `layer_updates` for its latest step, `step` left out."""


class Updates(Protocol):
    """What a framework's adapter offers: a look at the parameters before a step of the optimizer, and one after it."""

    def watch(self) -> None:
        """Begin to count the steps of optimizers; give up a look that `keep()` began."""

    def keep(self) -> None:
        """Remember, before a step, what will be compared."""

    def stepped(self) -> Collection[int] | None:
        """Return which optimizers have made a step since the last call, a number each; None where that is not known."""

    def rate(self) -> float | None:
        """Return, after a step and before `measure()`, the learning rate of the latest step.

        None where none was made since `keep()`, or where the rate is not known.
        """

    def measure(self) -> Measured:
        """Return, after a step, what it did to each trainable parameter, and end the look.

        Where no step was made since `keep()` there is nothing to return, and the look goes on.
        """

    def kernel_shares(self) -> Mapping[str, Array]:
        """Return layer → (inputs,), the share of each in the squared norm of its kernel's gradient, where it is known.

        It is that of what `measure()` returned last.
        """

    def recorded(self, names: Collection[Name]) -> None:
        """Count the travel of these parameters from what `measure()` returned last of them: that was recorded."""

    def release(self) -> None:
        """Forget what was kept, and let go of the model."""


@dataclass(slots=True)
class Tally:
    """What a pass over values finds.

    Attributes:
        norm: L2 norm of the finite values; None where there is none.
        finite: how many values are finite.
        zeros: how many are exactly zero.
        nan, inf: how many are not finite.
    """

    norm: float | None = None
    finite: int = 0
    zeros: int = 0
    nan: int = 0
    inf: int = 0


def tally(values: Arrays, *, zeros: bool = False) -> Tally:
    """Return norm and counts of an array, or of several as if they were one.

    Single precision is squared and summed in single precision over 8,192 values at a time, and those sums are added
    in double: the norm is right to about a millionth (at worst, without any SIMD, 8,192 roundings: 3e-4). Parts whose
    squares vanish or overflow are taken again, scaled.

    Args:
        values: any shape, any floating type.
        zeros: count zeros too.
    """
    return _tally(chunks(values), zeros)


def change(before: Arrays, after: Arrays) -> Tally:
    """Return norm and counts of after − before, which are shaped alike; `zeros` are the values that did not move."""
    return _tally((new - old for old, new in zip(chunks(before), chunks(after), strict=True)), zeros=True)


def shapes(values: Arrays) -> str:
    """Return the shapes of a parameter, for people."""
    return ", ".join(str(array.shape) for array in _listed(values))


def size_of(values: Arrays) -> int:
    """Return how many values a parameter has."""
    return sum(array.size for array in _listed(values))


def update_fields(
    before: Arrays, after: Arrays, *, gradient: Arrays | None = None, clipped: Arrays | None = None
) -> dict[str, FieldValue]:
    """Return the fields of `layer_updates` that say what a step did to one parameter, `optimizer_steps` left out.

    - gradient_norm, gradient_norm_clipped: L2 norm of the gradient as the optimizer was given it, and as it used it;
    - weight_norm: of `after`;
    - update_norm: ‖after − before‖;
    - update_ratio: update_norm / ‖before‖. About 1e-3 is usual (Karpathy, CS231n, "Ratio of weights:updates");
    - update_frequency: share of the weights that moved;
    - rounded_share: share of the values of `before` that a lower precision holds exactly, see `precision`;
    - zero_count: how many values of the gradient are exactly zero;
    - nan_count, inf_count: of `after` and of the gradient together.

    What is not known has no field.

    Args:
        before: the weights before the step, any shape.
        after: the weights after it, shaped alike.
        gradient: of the loss, before clipping; None where it is not known.
        clipped: after clipping; the same object as `gradient` where nothing was clipped; None where it is not known.

    Raises:
        ValueError: before and after differ in shape.
    """
    if shapes(before) != shapes(after):
        raise ValueError(f"before and after differ in shape: {shapes(before)} and {shapes(after)}")
    old, new, moved = tally(before), tally(after), change(before, after)
    unclipped = None if gradient is None else tally(gradient, zeros=True)
    used = unclipped if clipped is gradient else None if clipped is None else tally(clipped, zeros=True)
    seen = unclipped or used

    fields: dict[str, float | None] = {
        "gradient_norm": unclipped.norm if unclipped else None,
        "gradient_norm_clipped": used.norm if used else None,
        "weight_norm": new.norm,
        "update_norm": moved.norm,
        "update_ratio": moved.norm / old.norm if old.norm and moved.norm is not None else None,
        "update_frequency": (moved.finite - moved.zeros) / moved.finite if moved.finite else None,
        "rounded_share": rounded_share(before),
        "zero_count": seen.zeros if seen else None,
        "nan_count": new.nan + (seen.nan if seen else 0),
        "inf_count": new.inf + (seen.inf if seen else 0),
    }
    return {name: value for name, value in fields.items() if value is not None and math.isfinite(value)}


def passed_over_fields(values: Arrays) -> dict[str, FieldValue]:
    """Return the fields of `layer_updates`, `step` left out, for a parameter that the optimizer passed over this time.

    It has no gradient, and no update that could be small or large: `optimizer_steps` is 0.

    Args:
        values: the weights.
    """
    counts = tally(values)
    norm = {} if counts.norm is None else {"weight_norm": counts.norm}
    return {**norm, "nan_count": counts.nan, "inf_count": counts.inf, "optimizer_steps": 0}


def steady(before: float | None, after: float | None) -> float | None:
    """Return the learning rate of a step, from what it was before and after, right to 1 %.

    None where it is not known or not finite, or where it jumped: whether the step came first cannot be told.
    """
    if before is None or after is None or not math.isfinite(after):
        return None
    return after if math.isclose(before, after, rel_tol=_ALIKE) else None


def largest(rates: Iterable[float | None]) -> float | None:
    """Return the largest of some learning rates; None where one of them is not known, or where there are none."""
    all_rates = list(rates)
    present = [rate for rate in all_rates if rate is not None]
    return max(present, default=None) if len(present) == len(all_rates) else None


def update_points(updates: Measured, tags: Mapping[str, str], time: int, step: int) -> list[Point]:
    """Return the `layer_updates` points of one capture.

    Args:
        updates: what was measured.
        tags: run, phase and the user's own.
        time: nanoseconds since the epoch.
        step: of the training.
    """
    return [
        Point(
            LAYER_UPDATES,
            {**tags, "layer": clean_name(layer), "param": clean_name(param)},
            {**fields, "step": step},
            time,
        )
        for (layer, param), fields in updates.items()
    ]


def parts(size: int) -> Iterator[slice]:
    """Yield slices that together cover `size` values, each at most `_PART` long."""
    return (slice(start, start + _PART) for start in range(0, size, _PART))


def chunks(values: Arrays) -> Iterator[Array]:
    """Yield the values in flat arrays of at most 8,192, at least in single precision."""
    for array in _listed(values):
        flat = array.reshape(-1)
        for part in parts(flat.size):
            yield flat[part] if flat.dtype.itemsize >= 4 else flat[part].astype(np.float32)


def input_shares(gradient: Array) -> Array | None:
    """Return the share of each input in the squared norm of a kernel's gradient; None where that is zero or infinite.

    Args:
        gradient: (units, inputs).
    """
    with np.errstate(over="ignore"):
        squares: Array = np.square(gradient, dtype=np.float64).sum(axis=0)
    total = squares.sum()
    return squares / total if 0 < total < np.inf else None


def same_values(before: Array, after: Array) -> bool:
    """Return whether two arrays of one shape are equal, NaN to NaN."""
    pairs = zip(chunks(before), chunks(after), strict=True)
    return all(np.array_equal(old, new, equal_nan=True) for old, new in pairs)


def _listed(values: Arrays) -> Sequence[Array]:
    return [values] if isinstance(values, np.ndarray) else list(values)


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def _tally(arrays: Iterable[Array], zeros: bool) -> Tally:
    result = Tally()
    for array in arrays:
        values = array
        if zeros:
            result.zeros += int(np.count_nonzero(values == 0))
        squares, peak = float(np.dot(values, values)), 1.0
        if not _FAINT < squares < math.inf:
            finite = values[np.isfinite(values)].astype(np.float64)
            nan = int(np.count_nonzero(np.isnan(values)))
            result.nan += nan
            result.inf += values.size - finite.size - nan
            peak = float(np.abs(finite).max(initial=0)) or 1.0
            values = finite / peak
            squares = float(np.dot(values, values))
        if values.size:
            result.finite += values.size
            result.norm = math.hypot(result.norm or 0.0, peak * math.sqrt(squares))
    return result
