"""A table as Parquet, written a row group at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

if TYPE_CHECKING:
    from gatewatch.collector.schema import Point
    from gatewatch.jobs.exporting.tables import Column

_ROW_GROUP_BYTES: Final = 2**25
"""A row group is kept in memory until it is written: large enough to compress well and to be read quickly."""
_ARROW: Final[Mapping[type, Any]] = {float: pa.float64(), int: pa.int64(), bool: pa.bool_(), str: pa.string()}
_PANDAS: Final[Mapping[type, str]] = {float: "float64", int: "Int64", bool: "boolean", str: "object"}
"""What pandas reads a column as: whole numbers stay whole where some points have none."""


class ParquetFile:
    """Writes the rows of a table.

    Args:
        file: is written, and stays open.
        columns: of the table.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        self._columns = columns
        self._schema = _schema(columns)
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0

    def write(self, points: Sequence[Point]) -> None:
        """Write a row for each point."""
        arrays = [
            pa.array(column.values(points), field.type)
            for column, field in zip(self._columns, self._schema, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= _ROW_GROUP_BYTES:
            self._write_row_group()

    def close(self) -> None:
        """Write what was kept back, and the end of the file."""
        self._write_row_group()
        self._writer.close()

    def abandon(self) -> None:
        """Write nothing more; without it pyarrow would try to when this object is deleted, and report a failure."""
        self._batches.clear()
        with suppress(Exception):
            self._writer.close()
        self._writer.is_open = False

    def _write_row_group(self) -> None:
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches, self._schema))
            self._batches, self._bytes = [], 0


def _schema(columns: Sequence[Column]) -> pa.Schema:
    moment = pa.timestamp("ns", tz="UTC")
    fields = [pa.field(each.name, _ARROW[each.kind] if each.source else moment) for each in columns]
    dtypes = {each.name: _PANDAS[each.kind] if each.source else "datetime64[ns, UTC]" for each in columns}
    empty = pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()})
    return pa.schema(fields, metadata=pa.Schema.from_pandas(empty, preserve_index=False).metadata)
