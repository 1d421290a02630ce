"""Frames of pandas from points, alike for every store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.store.columns import labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from gatewatch.collector.schema import FieldValue

R = TypeVar("R")
Column = NDArray[Any]
"""(n,) values of one field: float64 with NaN where a point has none; int64 or bool where all have one; else objects,
None where a point has none."""

BLOCK: Final = 512
"""Points whose values are made columns at once: measured; the Python objects of more no longer fit the cache."""
_NUMPY: Final[Mapping[type, type]] = {int: np.int64, bool: np.bool_}
_NULLABLE: Final[Mapping[type, Any]] = {int: "Int64", bool: "boolean"}


@dataclass(frozen=True, slots=True)
class Block:
    """Points of one measurement, series by series; a series may be parted among blocks.

    Attributes:
        tags: of each series, tag name → value.
        sizes: how many points each series has.
        times: (n,) nanoseconds since the Unix epoch, of the first series, then of the second…
        fields: field name → (n,).
    """

    tags: Sequence[Mapping[str, str]]
    sizes: Sequence[int]
    times: NDArray[np.int64]
    fields: Mapping[str, Column]


Rows = tuple[list["Mapping[str, str]"], list[int], list[R]]
"""The tags and the size of each piece of a series, and the rows of all."""


def unite(pieces: Iterable[tuple[Mapping[str, str], Sequence[R]]]) -> Iterator[Rows[R]]:
    """Unite pieces of series until there are `BLOCK` rows: many small arrays would take longer than a few larger ones.

    Args:
        pieces: tags of a series, and some of its rows.
    """
    tags: list[Mapping[str, str]] = []
    rows: list[R] = []
    sizes: list[int] = []
    for of_series, more in pieces:
        tags.append(of_series)
        sizes.append(len(more))
        rows += more
        if len(rows) >= BLOCK:
            yield tags, sizes, rows
            tags, sizes, rows = [], [], []
    if rows:
        yield tags, sizes, rows


def column(values: Sequence[FieldValue | None], kind: type) -> Column:
    """Return the values of one field as an array; see `Column`.

    Args:
        values: one a point.
        kind: float, int, bool or str.

    Raises:
        TypeError, ValueError, OverflowError: one is of another type.
    """
    if kind is float or (kind in _NUMPY and None not in values):
        numbers: Column = np.array(values, dtype=_NUMPY.get(kind, np.float64))
        if numbers.ndim != 1:
            raise ValueError("a value that is no number")
        return numbers
    if not all(value is None or isinstance(value, kind) for value in values):
        raise TypeError(f"a value that is no {kind.__name__}")
    boxed = np.empty(len(values), dtype=object)
    boxed[:] = values
    return boxed


def frame(blocks: Iterable[Block], types: Mapping[str, type], prefix_tags: bool = False) -> pd.DataFrame:
    """Return the frame that `Store.read` promises, from the points of one measurement.

    Args:
        blocks: the points; those of the same tags may come in several pieces.
        types: field name → float, int, bool or str.
        prefix_tags: as of `Store.read`.
    """
    import pandas as pd  # noqa: PLC0415 - only who asks for a frame waits for it

    blocks = [block for block in blocks if len(block.times)]
    series = [each for block in blocks for each in zip(block.tags, block.sizes, strict=True) if each[1]]
    tag_names = sorted({name for tags, _ in series for name, value in tags.items() if value})
    keys = [tuple(tags.get(name) or "" for name in tag_names) for tags, _ in series]
    rank = {key: position for position, key in enumerate(sorted(set(keys)))}
    ranks = np.repeat(np.array([rank[key] for key in keys], dtype=np.intp), [size for _, size in series])
    times = np.concatenate([block.times for block in blocks]) if blocks else np.empty(0, np.int64)
    order = np.lexsort((ranks, times))

    names = sorted({name for block in blocks for name in block.fields})
    whole = {name: _whole(name, types[name], blocks) for name in names}
    fields = {name: values for name, values in whole.items() if values is not None}
    of_tags, of_fields = labels(tag_names, fields, prefix_tags)
    columns: dict[str, Any] = {"time": moments(times[order])}
    ranks = ranks[order]
    for position, name in enumerate(tag_names):
        texts = np.empty(len(rank), dtype=object)
        texts[:] = [key[position] or None for key in rank]
        columns[of_tags[name]] = pd.Series(texts[ranks], dtype=object)
    for name, values in fields.items():
        columns[of_fields[name]] = pd.Series(values[order], dtype=object) if types[name] is str else values[order]
    return pd.DataFrame(columns)


def moments(times: NDArray[np.int64]) -> pd.DatetimeIndex:
    """Return nanoseconds since the Unix epoch as an index of pandas, in UTC."""
    import pandas as pd  # noqa: PLC0415 - only who asks for a frame waits for it

    return pd.DatetimeIndex(times.view("M8[ns]")).tz_localize("UTC")


def _whole(name: str, kind: type, blocks: Sequence[Block]) -> Any:
    """Return the values of a field in all blocks; None where no point has one."""
    import pandas as pd  # noqa: PLC0415 - only who asks for a frame waits for it

    lacking = np.nan if kind is float else None
    values = np.concatenate([block.fields.get(name, np.full(len(block.times), lacking)) for block in blocks])
    if pd.isna(values).all():
        return None
    return pd.array(values, dtype=_NULLABLE[kind]) if kind in _NULLABLE and values.dtype == object else values
