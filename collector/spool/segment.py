"""A file of the spool: records of line protocol, one after the other.

Eight bytes name the format, eight say how far the records have been shipped, then come the records, each a header
(length of its lines, number of its points, CRC-32 of both and of the lines) and lines. A tail that is torn is cut, and
a record that is damaged is passed over.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MAGIC: Final = b"GWSPOOL1"
_SHIPPED: Final = struct.Struct("<Q")
_RECORD: Final = struct.Struct("<III")
_COUNTED: Final = struct.Struct("<II")
BEGIN: Final = len(MAGIC) + _SHIPPED.size
NEW: Final = MAGIC + _SHIPPED.pack(BEGIN)
"""What a new file begins with."""
SUFFIX: Final = ".spool"


@dataclass(slots=True)
class Segment:
    """A file of records.

    Attributes:
        path: of the file.
        shipped: where the first record begins that has not been shipped.
        size: where the last record ends.
        points: in the records from `shipped` on.
        records: of each from there on, where it ends, and its points; none where it is damaged.
        torn: whether its tail, or all of it, is no record.
    """

    path: Path
    shipped: int = BEGIN
    size: int = BEGIN
    points: int = 0
    records: deque[tuple[int, int]] = field(default_factory=deque)
    torn: bool = False

    @property
    def damaged(self) -> int:
        """Records and tails that cannot be read."""
        return self.torn + sum(points == 0 for _, points in self.records)

    def pass_over(self, end: int) -> None:
        """What ends there or before is done with."""
        while self.records and self.records[0][0] <= end:
            self.points -= self.records.popleft()[1]
        self.shipped = max(self.shipped, end)

    def keep_shipped(self) -> None:
        """Write down how far it has been shipped, for whoever comes after. Where that fails it is shipped again."""
        with suppress(OSError), self.path.open("r+b", buffering=0) as file:
            file.seek(len(MAGIC))
            file.write(_SHIPPED.pack(self.shipped))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records of one segment.

    Attributes:
        lines: of line protocol, each ending in a newline; none where all records are damaged.
        points: their number.
        damaged: how many records were passed over.
        lost: their points, of those that were sound when this process found or wrote them.
        segment: where they are.
        end: where the last of them ends there.
    """

    lines: bytes
    points: int
    damaged: int
    lost: int
    segment: Segment
    end: int


def as_record(lines: bytes, points: int) -> bytes:
    """Lines of line protocol, with the number of their points, as a file holds them."""
    counted = _COUNTED.pack(len(lines), points)
    return counted + struct.pack("<I", zlib.crc32(lines, zlib.crc32(counted))) + lines


def read_segment(path: Path) -> Segment:
    """What a file holds that has not been shipped; what is no segment holds nothing.

    Raises:
        OSError: it cannot be read.
    """
    segment = Segment(path)
    content = path.read_bytes()
    if len(content) < BEGIN or not content.startswith(MAGIC):
        segment.size, segment.torn = len(content), bool(content)
        return segment
    (shipped,) = _SHIPPED.unpack_from(content, len(MAGIC))
    segment.shipped = segment.size = shipped if BEGIN <= shipped <= len(content) else BEGIN
    for end, points, sound in _records(content, segment.shipped):
        segment.records.append((end, points if sound else 0))
        segment.points += points if sound else 0
        segment.size = end
    segment.torn = segment.size < len(content)
    return segment


def _records(content: bytes, begin: int) -> Iterator[tuple[int, int, bool]]:
    """Of each record: where it ends, its points, and whether it is sound."""
    while begin + _RECORD.size <= len(content):
        length, points, checksum = _RECORD.unpack_from(content, begin)
        lines = begin + _RECORD.size
        if length == 0 or lines + length > len(content):
            return
        counted = zlib.crc32(content[begin : begin + _COUNTED.size])
        yield lines + length, points, zlib.crc32(memoryview(content)[lines : lines + length], counted) == checksum
        begin = lines + length


def read_batch(segment: Segment, most: int) -> Batch | None:
    """The first records that were not shipped, up to so many points, but at least one record; None for none.

    Raises:
        OSError: they cannot be read now.
    """
    end, expected, records = segment.shipped, 0, 0
    for record_end, record_points in segment.records:
        if records and expected + record_points > most:
            break
        end, expected, records = record_end, expected + record_points, records + 1
    if not records:
        return None
    try:
        with segment.path.open("rb") as file:
            file.seek(segment.shipped)
            content = file.read(end - segment.shipped)
    except FileNotFoundError:  # somebody has cleared the folder
        content = b""
    lines, begin, points = [], 0, 0
    for record_end, record_points, sound in _records(content, 0):
        if sound:
            lines.append(content[begin + _RECORD.size : record_end])
            points += record_points
        begin = record_end
    return Batch(b"".join(lines), points, records - len(lines), max(0, expected - points), segment, end)
