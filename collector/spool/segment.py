"""A file of the spool: records of line protocol, one after the other, which are shipped together.

Eight bytes name the format, then come the records, each a header (length of its lines, number of its points, CRC-32 of
both and of the lines) and lines. A tail that is torn is cut, and a record that is damaged is skipped.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAGIC: Final = b"GWSPOOL2"
_COUNTS: Final = struct.Struct("<II")
_CHECKSUM: Final = struct.Struct("<I")
_HEADER: Final = _COUNTS.size + _CHECKSUM.size
SUFFIX: Final = ".spool"


@dataclass(slots=True, eq=False)
class Segment:
    """A file of records.

    Attributes:
        path: of the file.
        size: bytes up to the end of the last record.
        points: in the sound records.
        damaged: how many records, or tails, were damaged when the file was read.
    """

    path: Path
    size: int = len(MAGIC)
    points: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Points to ship.

    Attributes:
        lines: of line protocol, each ending in a newline; none where all records are damaged.
        points: their number.
        segment: the file that holds them; None: they are in memory.
    """

    lines: bytes
    points: int
    segment: Segment | None = None


def as_record(lines: bytes, points: int) -> bytes:
    """Return lines of line protocol, with the number of their points, as a file holds them."""
    counts = _COUNTS.pack(len(lines), points)
    return counts + _CHECKSUM.pack(zlib.crc32(lines, zlib.crc32(counts))) + lines


def read_segment(path: Path, size: int | None = None) -> tuple[Segment, bytes]:
    """Read a file, up to a size where one is given: what it holds, and the lines of its sound records.

    What is no segment holds nothing.

    Raises:
        OSError: it cannot be read.
    """
    content = path.read_bytes()[:size]
    segment, sound = Segment(path, len(content)), []
    begin = len(MAGIC) if content.startswith(MAGIC) else len(content)
    while begin + _HEADER <= len(content):
        length, points = _COUNTS.unpack_from(content, begin)
        end = begin + _HEADER + length
        if length == 0 or end > len(content):
            break
        lines = content[begin + _HEADER : end]
        if content[begin:end] == as_record(lines, points):
            sound.append(lines)
            segment.points += points
        else:
            segment.damaged += 1
        begin = end
    torn = begin < len(content) or not content.startswith(MAGIC)
    segment.damaged += torn and bool(content)
    return segment, b"".join(sound)
