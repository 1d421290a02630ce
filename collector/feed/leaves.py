"""The arrays in what a model is given: nested, of any framework, packed, ragged, sparse or of half precision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.arrays import Mask, plain_array
from gatewatch.collector.text import one_line

_LARGEST_SPARSE: Final = 2**22
"""Places: a larger sparse array is not made dense."""

Numbers = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """One array of a batch, which is read when it is needed.

    Attributes:
        name: under which it lies, for a message.
        array: of whatever framework.
        shape: its dimensions, the batch first, also where it is stored with time first.
        kind: "f" floating, "i" whole numbers, "b" flags.
        mask: (B, T), False where a position is padding.
        time_first: whether the array has time and batch the other way round.
    """

    name: str
    array: Any
    shape: tuple[int, ...]
    kind: str
    mask: Mask | None = None
    time_first: bool = False

    @property
    def is_quantity(self) -> bool:
        """Whether means of it mean something: whole numbers of one or two dimensions are ids, flags likewise."""
        return self.kind == "f" or len(self.shape) > 2

    @property
    def features(self) -> int:
        """How many features it has at a position."""
        return math.prod(self.shape[2:] if len(self.shape) > 2 else self.shape[1:])

    def batch_first(self) -> Leaf:
        """Return it with its first two dimensions swapped, where they are time and batch."""
        is_sequence = len(self.shape) > 2 or (len(self.shape) == 2 and not self.is_quantity)
        return self.swapped() if is_sequence and self.mask is None else self

    def swapped(self) -> Leaf:
        """Return it with its first two dimensions swapped."""
        return replace(self, shape=(self.shape[1], self.shape[0], *self.shape[2:]), time_first=not self.time_first)

    def rows(self, rows: NDArray[np.intp]) -> Numbers:
        """Return some rows of the batch as an array of NumPy, which may be a view where they are all."""
        axis = int(self.time_first)
        array = _on_host(self.array, rows if len(rows) < self.shape[0] else None, axis)
        if array.shape[axis] != len(rows):
            array = array[:, rows] if axis else array[rows]
        return array.swapaxes(0, 1) if axis else array


def iter_leaves(values: Any) -> tuple[list[Leaf], list[str]]:
    """Return the arrays of a nest in their order, a mapping by its sorted names; and what is left out, a line each.

    Numbers, flags and None by themselves are settings of a call, and passed over.

    Args:
        values: arrays or tensors, or lists, tuples and mappings of such.
    """
    left_out: list[str] = []
    return list(_leaves(values, "the input", left_out)), left_out


def _leaves(value: Any, name: str, left_out: list[str]) -> Iterator[Leaf]:
    if value is None or isinstance(value, bool | int | float | complex) or _is_one_number(value):
        return
    if isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from _leaves(value[key], repr(one_line(key, 60)), left_out)
    elif hasattr(value, "batch_sizes") and hasattr(value, "unsorted_indices"):
        yield _packed(value, name)
    elif hasattr(value, "row_lengths") and hasattr(value, "to_tensor"):
        yield _ragged_tensor(value, name)
    elif isinstance(value, list | tuple):
        if (leaf := _listed(value, name)) is not None:
            yield leaf
        else:
            for number, one in enumerate(value):
                yield from _leaves(one, f"input {number}" if name == "the input" else name, left_out)
    elif (leaf := _plain(value, name)) is not None:
        yield leaf
    else:
        left_out.append(f"{name}, {_what(value)}")


def _plain(value: Any, name: str) -> Leaf | None:
    """Return an array or tensor of numbers; None of anything else."""
    if not hasattr(value, "shape") or (kind := _kind(value)) is None:
        return None
    shape = tuple(int(size) for size in value.shape)
    if _is_sparse(value) and math.prod(shape) > _LARGEST_SPARSE:
        return None
    if hasattr(value, "iloc"):  # a table of pandas, which has no dtype of its own
        value = np.asarray(value)
    return Leaf(name, value, shape, kind)


def _is_one_number(value: Any) -> bool:
    return _kind(value) is not None and tuple(getattr(value, "shape", (0,))) == ()


def _kind(value: Any) -> str | None:
    kind = getattr(value, "dtype", None)
    if kind is None and hasattr(value, "iloc"):
        kind = np.asarray(value).dtype
    text = str(getattr(kind, "name", kind)).rpartition(".")[2]
    starts = {"float": "f", "bfloat": "f", "int": "i", "uint": "i", "bool": "b"}
    return next((letter for start, letter in starts.items() if text.startswith(start)), None)


def _what(value: Any) -> str:
    kind = f"a {type(value).__name__}"
    if isinstance(value, str | bytes):
        return "text"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{kind} of {one_line(value.dtype, 60)} and shape {tuple(value.shape)}"
    return kind


def _listed(value: Any, name: str) -> Leaf | None:
    """Return a list of numbers, or of sequences of different lengths, as one array; None of any other list."""
    if not value:
        return None
    if (array := plain_array(value)) is not None:
        return _plain(array, name)
    if len(value) < 2 or not all(hasattr(one, "shape") and _kind(one) == "f" for one in value):
        return None
    shapes = [tuple(one.shape) for one in value]
    if len({shape[0] for shape in shapes if shape}) < 2 or len({(len(shape), *shape[1:]) for shape in shapes}) > 1:
        return None
    if len(shapes[0]) not in (1, 2):
        return None
    arrays = [_on_host(one).reshape(shape[0], -1) for one, shape in zip(value, shapes, strict=True)]
    lengths = np.asarray([len(array) for array in arrays])
    padded = np.zeros((len(arrays), lengths.max(), arrays[0].shape[1]), arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return _masked(padded, lengths, name)


def _packed(value: Any, name: str) -> Leaf:
    """Return a packed sequence of torch, padded."""
    data, sizes = _on_host(value.data), _on_host(value.batch_sizes)
    padded = np.zeros((int(sizes[0]), len(sizes), *data.shape[1:]), data.dtype)
    begin = 0
    for position, size in enumerate(sizes.tolist()):
        padded[:size, position] = data[begin : begin + size]
        begin += size
    lengths = (np.arange(len(padded))[:, None] < sizes).sum(axis=1)
    if value.unsorted_indices is not None:
        order = _on_host(value.unsorted_indices)
        padded, lengths = padded[order], lengths[order]
    return _masked(padded, lengths, name)


def _ragged_tensor(value: Any, name: str) -> Leaf:
    """Return a ragged tensor of TensorFlow, padded."""
    return _masked(np.asarray(value.to_tensor()), np.asarray(value.row_lengths()), name)


def _masked(padded: Numbers, lengths: NDArray[Any], name: str) -> Leaf:
    mask = np.arange(padded.shape[1]) < lengths[:, None]
    if padded.ndim == 2 and padded.dtype.kind == "f":
        padded = padded[:, :, None]
    return Leaf(name, padded, padded.shape, _kind(padded) or "f", mask)


def _is_sparse(value: Any) -> bool:
    layout = str(getattr(value, "layout", "torch.strided"))
    return layout != "torch.strided" or hasattr(value, "nnz") or hasattr(value, "dense_shape")


def _on_host(value: Any, rows: NDArray[np.intp] | None = None, axis: int = 0) -> Numbers:
    """Return a tensor as an array of NumPy; one on a device at these rows only, so that little is copied from there."""
    if hasattr(value, "detach"):
        value = value.detach()
        if _is_sparse(value):
            value = value.to_dense()
        if rows is not None and value.device.type != "cpu":
            value = value[:, rows.tolist()] if axis else value[rows.tolist()]
        value = value.cpu()
        if value.dtype.is_floating_point and value.dtype.itemsize < 4:
            value = value.float()
        array: Numbers = value.numpy()
        return array
    if hasattr(value, "dense_shape"):
        dense = np.zeros(tuple(int(size) for size in value.shape), np.asarray(value.values).dtype)
        dense[tuple(np.asarray(value.indices).T)] = np.asarray(value.values)
        return dense
    array = np.asarray(value.toarray() if hasattr(value, "nnz") else value)
    return array.astype(np.float32) if array.dtype.name.startswith(("bfloat", "float8")) else array
