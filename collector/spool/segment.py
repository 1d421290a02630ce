"""A file of the spool: records of line protocol, one after the other, which are shipped together.

Eight bytes name the format, then come the records, each a header (length of its lines, number of its points, CRC-32 of
both and of the lines) and lines. A tail that is torn is cut, and a record that is damaged is skipped.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

MAGIC: Final = b"GWSPOOL2"
_FORMER: Final = struct.Struct("<8sQ")
"""How files of the former format begin: with its name, GWSPOOL1, and how far their records have been shipped."""
_COUNTS: Final = struct.Struct("<II")
_CHECKSUM: Final = struct.Struct("<I")
_HEADER: Final = _COUNTS.size + _CHECKSUM.size
SUFFIX: Final = ".spool"
MOST_BYTES: Final = 2**28
"""So much of a file is read. One is begun anew past 4 MiB, so only a record of this size would make a longer one."""


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
    size: int = 0
    points: int = 0
    damaged: int = 0
    _file: int = -1

    @classmethod
    def begin(cls, path: Path) -> Self:
        """Make a new file to append to.

        Raises:
            OSError: it cannot be made.
        """
        return cls(path, _file=os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600))

    def has_room(self, points: int, most_bytes: int, most_points: int) -> bool:
        """Return whether points can be appended: the file is open and complete, and stays below both limits."""
        fits = self.size < most_bytes and self.points + points <= most_points
        return fits and self._file >= 0 and os.fstat(self._file).st_size == self.size

    def append(self, lines: bytes, points: int) -> None:
        """Write lines of line protocol as a record at the end.

        Raises:
            OSError: nothing was written: the disk is full, the folder is gone.
        """
        record = as_record(lines, points)
        content = record if self.size else MAGIC + record
        try:
            written = 0
            while written < len(content):
                written += os.write(self._file, content[written:])
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, self.size)
            raise
        end = self.size + len(content)
        self.points += points
        self.size = end  # last: where a Ctrl-C comes between, the next record begins a new segment

    def end(self) -> None:
        """Close the file."""
        if self._file >= 0:
            with suppress(OSError):
                os.close(self._file)
            self._file = -1

    def read(self) -> Batch:
        """Read the file, to which nothing is appended from now on.

        Raises:
            OSError: it cannot be read now.
        """
        self.end()
        try:
            sound, lines = read_segment(self.path, self.size)
        except FileNotFoundError:  # somebody has cleared the folder
            return Batch(b"", 0, self)
        return Batch(lines, sound.points, self)

    def remove(self) -> None:
        """Delete the file."""
        self.end()
        with suppress(OSError):
            self.path.unlink()


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

    What is no segment holds nothing. What lies beyond `MOST_BYTES` counts as damaged, and is not read.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        whole = os.fstat(file.fileno()).st_size if size is None else size
        content = file.read(min(whole, MOST_BYTES))
    segment, sound = Segment(path, whole), []
    if content.startswith(MAGIC):
        begin = len(MAGIC)
    elif content.startswith(b"GWSPOOL1") and len(content) >= _FORMER.size:
        begin = max(_FORMER.size, _FORMER.unpack_from(content)[1])
    else:
        segment.damaged = int(bool(content))
        return segment, b""
    while begin + _HEADER <= len(content):
        length, points = _COUNTS.unpack_from(content, begin)
        end = begin + _HEADER + length
        if length == 0 or end > len(content):
            break
        lines = content[begin + _HEADER : end]
        if content[begin:end] == as_record(lines, points) and points <= lines.count(b"\n"):
            sound.append(lines)
            segment.points += points
        else:
            segment.damaged += 1
        begin = end
    segment.damaged += begin != whole
    return segment, b"".join(sound)
