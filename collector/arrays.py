"""The types of arrays, and nested lists and mappings of tensors of any framework as NumPy arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


def iter_arrays(values: Any, what: str, name: str = "") -> Iterator[tuple[str, Array]]:
    """Yield every array of nested lists and mappings, with the key under which it lies, or no name.

    Args:
        values: an array, a tensor of any framework, a number, or lists and mappings of such. None is passed over.
        what: the name of `values` in an error.
        name: of arrays that lie under no key.

    Raises:
        TypeError: an entry is no array of numbers.
    """
    array = None
    if values is None:
        return
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from iter_arrays(value, what, str(key))
    elif isinstance(values, list | tuple) and (array := plain_array(values)) is None:
        for value in values:
            yield from iter_arrays(value, what, name)
    else:
        yield name, as_array(values if array is None else array, what)


def as_array(values: Any, what: str) -> Array:
    """Return a tensor of any framework, or what else NumPy makes an array of, as one of floating numbers.

    Raises:
        TypeError: it is no array of numbers; `what` names it.
    """
    if hasattr(values, "indices") and hasattr(values, "dense_shape"):
        return _dense(values, what)
    if hasattr(values, "detach"):  # torch makes no array of a tensor with a gradient, nor of one on a device
        values = values.detach().cpu()
        values = values.float() if "bfloat16" in str(values.dtype) else values
    try:
        array = np.asarray(values)
        if array.dtype.kind == "f" and array.dtype.itemsize <= 8:
            return array
        if array.dtype.kind in "iubf" or array.dtype.name == "bfloat16":
            return array.astype(np.float32 if array.dtype.name == "bfloat16" else np.float64)
    except (TypeError, ValueError, RuntimeError):  # of whatever library the value is
        pass
    raise TypeError(f"{what}: must be arrays of numbers, not {type(values).__name__}")


def as_number(value: Any) -> float | None:
    """Return a number of whatever library, or an array or list of one; None where it is none.

    A whole number too large for a float is infinite.
    """
    if isinstance(value, str | bytes) or value is None:
        return None
    try:
        one = value if hasattr(value, "item") else np.asarray(value)
        number = one.item()
        is_time = getattr(getattr(one, "dtype", None), "kind", "f") in "mM"  # its item is a whole number of nanoseconds
        return None if is_time or isinstance(number, str | bytes) else float(number)
    except OverflowError:
        return math.inf
    except Exception:  # of whatever library the value is
        return None


def _dense(slices: Any, what: str) -> Array:
    """Return TensorFlow's gradient of an embedding (rows, which may come more than once, and their places), whole."""
    values, indices = as_array(slices.values, what), np.asarray(slices.indices)
    if slices.dense_shape is None:
        present, indices = np.unique(indices, return_inverse=True)
        rows = len(present)
    else:
        rows = int(slices.dense_shape[0])
    dense = np.zeros((rows, *values.shape[1:]), values.dtype)
    np.add.at(dense, indices, values)
    return dense


def plain_array(values: Any) -> Array | None:
    """Return a list of numbers, or of equally long lists of such, as one array."""
    try:
        return np.asarray(values) if _numbers(values) else None
    except ValueError:  # the lists differ in length
        return None


def _numbers(values: Any) -> bool:
    return isinstance(values, int | float) or (isinstance(values, list | tuple) and all(map(_numbers, values)))
