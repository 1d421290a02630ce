"""One writer's part of the spool: its segments on disk, oldest first, and the lock that says that it lives.

A segment is a file: eight bytes that name the format, eight that say how far its records have been shipped, then the
records, each a header (length of its lines, number of its points, CRC-32 of both and of the lines) and lines of line
protocol. A record is written with one call of the operating system, so that it survives the death of the process; a
tail that is torn all the same is cut, and a record that is damaged is passed over.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

MAGIC: Final = b"GWSPOOL1"
_SHIPPED: Final = struct.Struct("<Q")
_RECORD: Final = struct.Struct("<III")
_COUNTED: Final = struct.Struct("<II")
BEGIN: Final = len(MAGIC) + _SHIPPED.size
LOCK: Final = "lock"
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


class Lane:
    """A folder of segments that one process writes, or that another has taken over from one that died.

    Not for several threads at once: the spool holds a lock of its own.

    Args:
        folder: of the lane.
        lock: the descriptor of its lock file, which is locked.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock
        self._write = -1
        self._next = 1
        self.segments: deque[Segment] = deque()

    @classmethod
    def create(cls, folder: Path) -> Self:
        """A new lane. Nobody can take it over before it is locked: until then it has another name.

        Raises:
            OSError: it cannot be made.
        """
        hidden = folder.with_name(f".{folder.name}")
        hidden.mkdir(parents=True)
        lock = os.open(hidden / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        if not _try_lock(lock):
            raise BlockingIOError(f"{hidden} is locked")  # the file system has no locks
        hidden.rename(folder)
        return cls(folder, lock)

    @classmethod
    def adopt(cls, folder: Path) -> Self | None:
        """The lane of a process that is no more, with what it left; None where it lives or the lane is gone."""
        try:
            lock = os.open(folder / LOCK, os.O_RDWR)
        except OSError:
            return None
        lane = cls(folder, lock)
        try:
            if _try_lock(lock) and folder.exists():
                lane.segments.extend(map(read_segment, sorted(folder.glob(f"*{SUFFIX}"))))
                return lane
        except OSError:  # it cannot be read now: another time
            pass
        lane.forget()
        return None

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self.segments)

    @property
    def points(self) -> int:
        """Points that have not been shipped."""
        return sum(segment.points for segment in self.segments)

    def append(self, lines: bytes, points: int, segment_bytes: int) -> bool:
        """Write a record at the end; whether that began a new segment.

        Raises:
            OSError: nothing was written: the disk is full, the folder is gone.
        """
        fresh = self._write < 0 or self._is_torn() or self.segments[-1].size >= segment_bytes
        if fresh:
            self._begin_segment()
        segment = self.segments[-1]
        counted = _COUNTED.pack(len(lines), points)
        record = counted + struct.pack("<I", zlib.crc32(lines, zlib.crc32(counted))) + lines
        try:
            written = 0
            while written < len(record):
                written += os.write(self._write, record[written:] if written else record)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._write, segment.size)
            raise
        # The size last: where a Ctrl-C comes between, the next record begins a new segment.
        segment.records.append((segment.size + len(record), points))
        segment.points += points
        segment.size += len(record)
        return fresh

    def _is_torn(self) -> bool:
        """Whether an append has failed in the middle, or was interrupted."""
        return not self.segments or os.fstat(self._write).st_size != self.segments[-1].size

    def next_batch(self, most: int) -> Batch | None:
        """The oldest records, of one segment, up to so many points, but at least one record; None for none.

        Raises:
            OSError: they cannot be read now.
        """
        while self.segments:
            segment = self.segments[0]
            batch = _read(segment, most)
            if batch is not None:
                return batch
            if segment is self.segments[-1] and self._write >= 0:
                return None
            self.remove(segment)
        return None

    def done(self, batch: Batch) -> None:
        """A batch of this lane is in the store: it will not be read again, by whoever comes after either."""
        segment = batch.segment
        _pass(segment, batch.end)
        if segment.points == 0 and not (segment is self.segments[-1] and self._write >= 0):
            self.remove(segment)
            return
        with suppress(OSError), segment.path.open("r+b", buffering=0) as file:
            file.seek(len(MAGIC))
            file.write(_SHIPPED.pack(segment.shipped))

    def remove(self, segment: Segment) -> None:
        """Delete a segment."""
        if segment is self.segments[-1]:
            self._end_segment()
        self.segments.remove(segment)
        with suppress(OSError):
            segment.path.unlink()

    def close(self) -> None:
        """Let go: an empty lane is deleted, another may take over what one still holds."""
        self._end_segment()
        if not self.points:
            for segment in list(self.segments):
                self.remove(segment)
            with suppress(OSError):
                (self.folder / LOCK).unlink()
                self.folder.rmdir()
        self.forget()

    def forget(self) -> None:
        """Close the files and nothing else. In a forked child: the lock stays with the parent."""
        for descriptor in (self._write, self._lock):
            if descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)
        self._write = self._lock = -1
        self.segments = deque()

    def _begin_segment(self) -> None:
        self._end_segment()
        path = self.folder / f"{self._next:08d}{SUFFIX}"
        self._next += 1  # first: an interrupt must not leave a name that is taken
        self._write = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self.segments.append(Segment(path))
        try:
            if os.write(self._write, MAGIC + _SHIPPED.pack(BEGIN)) < BEGIN:
                raise OSError("the disk is full")
        except OSError:
            self.remove(self.segments[-1])
            raise

    def _end_segment(self) -> None:
        if self._write >= 0:
            with suppress(OSError):
                os.close(self._write)
            self._write = -1


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


def _read(segment: Segment, most: int) -> Batch | None:
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


def _pass(segment: Segment, end: int) -> None:
    while segment.records and segment.records[0][0] <= end:
        segment.points -= segment.records.popleft()[1]
    segment.shipped = max(segment.shipped, end)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
