"""Windows over captures: of each capture, those up to it and no later one.

Notation: (..., n) holds n captures, oldest first, of any number of series; NaN where a capture has no value. What is
computed of a window does not depend on what is computed beside it, to the last bit: a pass that comes late, and has
more captures before it, gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array

FEWEST: Final = 4
"""A median, slope or correlation of fewer finite values than this is NaN."""
_AT_ONCE: Final = 2**22
"""Maximum number of values in memory at once: 32 MB."""


def of_newest(values: Array, newest: int | None, axis: int = -1) -> Array:
    """Return the values of the newest captures along an axis; all values for None."""
    if newest is None or newest >= values.shape[axis]:
        return values
    return values[(*[slice(None)] * (axis % values.ndim), slice(values.shape[axis] - newest, None))]


def latest(values: Array, captures: int, newest: int | None = None, axis: int = -1) -> Array:
    """Return the last `captures` up to each capture: (..., captures), oldest first, NaN before the first capture.

    Args:
        values: any shape.
        captures: how many, the newest included.
        newest: compute values for only this many of the newest captures; None: for all.
        axis: along which the captures lie.
    """
    windows = _windows(values, captures, newest, axis)
    return of_newest(windows, windows.shape[axis % values.ndim] - 1, axis % values.ndim)


def before(values: Array, captures: int, newest: int | None = None) -> Array:
    """Return the `captures` before each capture: (..., n, captures), oldest first, NaN before the first capture."""
    return _windows(values, captures, newest, -1)[..., :-1, :]


def _windows(values: Array, captures: int, newest: int | None, axis: int) -> Array:
    """The windows that end before the first capture, at it, at the second…"""
    axis %= values.ndim
    size = values.shape[axis] if newest is None else min(newest, values.shape[axis])
    values = of_newest(values, size + captures, axis)
    missing = size + captures - values.shape[axis]
    shape = (*values.shape[:axis], missing, *values.shape[axis + 1 :])
    padded = np.concatenate([np.full(shape, np.nan), values], axis=axis)
    return np.lib.stride_tricks.sliding_window_view(padded, captures, axis=axis)


def median(values: Array, fewest: int = FEWEST) -> Array:
    """Return the median of the finite values along the last axis; NaN where fewer than `fewest` are finite."""
    ordered = np.sort(values, axis=-1)  # NaN comes last
    known = np.isfinite(ordered).sum(axis=-1, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(known - 1, 0) // 2, axis=-1)
    high = np.take_along_axis(ordered, np.minimum(known // 2, ordered.shape[-1] - 1), axis=-1)
    return np.where(known >= max(1, fewest), low + (high - low) / 2, np.nan)[..., 0]


def slope(windows: Array) -> Array:
    """Return the slope per capture of the robust line through the values along the last axis.

    The median of the slopes between any two of them (Theil 1950, "A rank-invariant method of linear and polynomial
    regression analysis"; Sen 1968).

    Returns:
        (...), NaN where fewer than `FEWEST` have a value.
    """

    def work(values: Array) -> Array:
        first, second = np.triu_indices(values.shape[-1], 1)
        slopes = median((values[:, second] - values[:, first]) / (second - first), 1)
        return np.where(np.isfinite(values).sum(axis=-1) >= FEWEST, slopes, np.nan)

    return piecewise(work, windows)


def rank_correlation(x: Array, y: Array) -> Array:
    """Return Kendall's τ-b of the values along the last axis.

    Kendall 1945, "The treatment of ties in ranking problems".

    Args:
        x, y: (..., captures); only captures in which both have a value count.

    Returns:
        (...), −1 to 1; NaN where fewer than `FEWEST` have a value, or all are the same.
    """

    def work(x: Array, y: Array) -> Array:
        both = np.isfinite(x) & np.isfinite(y)
        x, y = np.where(both, x, np.nan), np.where(both, y, np.nan)
        first, second = np.triu_indices(x.shape[-1], 1)
        signs = [np.nan_to_num(np.sign(each[:, second] - each[:, first])) for each in (x, y)]
        agree = (signs[0] * signs[1]).sum(axis=-1)
        untied = np.sqrt(np.abs(signs[0]).sum(axis=-1)) * np.sqrt(np.abs(signs[1]).sum(axis=-1))
        known = (both.sum(axis=-1) >= FEWEST) & (untied > 0)
        return quotient(agree, untied, known)

    return piecewise(work, *np.broadcast_arrays(x, y))


def quotient(dividend: Array, divisor: Array, where: NDArray[np.bool_]) -> Array:
    """Return dividend / divisor, and NaN where `where` is false."""
    with np.errstate(over="ignore", invalid="ignore"):  # inf / inf
        return np.asarray(np.divide(dividend, divisor, out=np.full(dividend.shape, np.nan), where=where))


def piecewise(work: Callable[..., Array], *windows: Array, within: int = 1) -> Array:
    """Work on as many windows at once as there is room for, where the work takes room for any two values of each.

    Args:
        work: (m, …) windows → (m,).
        windows: (..., …), alike in their first axes.
        within: how many axes a window has.
    """
    shape = windows[0].shape[: windows[0].ndim - within]
    result = np.empty(math.prod(shape))
    room = math.prod(windows[0].shape[len(shape) :]) * windows[0].shape[-1]
    size = max(1, _AT_ONCE // max(1, room))
    for begin in range(0, len(result), size):
        some = np.unravel_index(np.arange(begin, min(begin + size, len(result))), shape)
        result[begin : begin + size] = work(*(each[some] for each in windows))
    return result.reshape(shape)
