"""The folder of one writer in the spool: its files, oldest first, and the lock that shows that it is alive.

A record is written with one call of the operating system, so that it survives the death of the process.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final, Self

from gatewatch.collector.spool.segment import MAGIC, SUFFIX, Batch, Segment, as_record, read_segment

LOCK: Final = "lock"


class WriterDir:
    """A folder of segments that one process writes, or that another adopted from a process that died.

    Not for several threads at once: the spool holds a lock of its own.

    Args:
        folder: its path.
        lock: its lock file, open.
    """

    def __init__(self, folder: Path, lock: FileIO) -> None:
        self.folder = folder
        self._lock = lock
        self._write = -1
        self._next = 1
        self.segments: deque[Segment] = deque()

    @classmethod
    def create(cls, folder: Path) -> Self:
        """Make a new folder. No process can adopt it before it is locked: until then it has another name.

        Raises:
            OSError: it cannot be made, or the file system has no locks.
        """
        hidden = folder.with_name(f".{folder.name}")
        hidden.mkdir(parents=True)
        lock = (hidden / LOCK).open("xb", buffering=0)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(folder)
        return cls(folder, lock)

    @classmethod
    def adopt(cls, folder: Path) -> Self | None:
        """Adopt the folder of a process that ended, with what it left; None where it is alive or the folder is gone."""
        try:
            writer = cls(folder, (folder / LOCK).open("r+b", buffering=0))
        except OSError:
            return None
        with suppress(OSError):  # its process is alive, or it cannot be read now: another time
            fcntl.flock(writer._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            writer.segments.extend(read_segment(path)[0] for path in sorted(folder.glob(f"*{SUFFIX}")))
            return writer
        writer.forget()
        return None

    @property
    def points(self) -> int:
        """Points that have not been shipped."""
        return sum(segment.points for segment in self.segments)

    def append(self, lines: bytes, points: int, most_bytes: int, most_points: int) -> None:
        """Write a record at the end of the last segment, or into a new one where that has enough bytes or points.

        Raises:
            OSError: nothing was written: the disk is full, the folder is gone.
        """
        last = self.segments[-1] if self.segments and self._write >= 0 else None
        torn = last is not None and os.fstat(self._write).st_size != last.size  # an append was interrupted
        fresh = last is None or torn or last.size >= most_bytes or last.points + points > most_points
        if fresh:
            self._begin_segment()
        segment = self.segments[-1]
        record = as_record(lines, points)
        content = MAGIC + record if fresh else record
        try:
            written = 0
            while written < len(content):
                written += os.write(self._write, content[written:])
        except OSError:
            if fresh:
                self.remove(segment)
            else:
                with suppress(OSError):
                    os.ftruncate(self._write, segment.size)
            raise
        end = segment.size + len(record)
        segment.points += points
        segment.size = end  # last: where a Ctrl-C comes between, the next record begins a new segment

    def next_batch(self) -> Batch | None:
        """Return the points of the oldest segment, to which nothing is added from now on; None where there is none.

        Raises:
            OSError: it cannot be read now.
        """
        if not self.segments:
            return None
        segment = self.segments[0]
        if segment is self.segments[-1]:
            self._end_segment()
        try:
            sound, lines = read_segment(segment.path, segment.size)
        except FileNotFoundError:  # somebody has cleared the folder
            return Batch(b"", 0, segment)
        return Batch(lines, sound.points, segment)

    def remove(self, segment: Segment) -> None:
        """Delete a segment."""
        if segment is self.segments[-1]:
            self._end_segment()
        self.segments.remove(segment)
        with suppress(OSError):
            segment.path.unlink()

    def close(self) -> None:
        """Close the files: an empty folder is deleted, another process may adopt one that is not."""
        if not self.points:
            for segment in list(self.segments):
                self.remove(segment)
            with suppress(OSError):
                (self.folder / LOCK).unlink()
                self.folder.rmdir()
        self.forget()

    def forget(self) -> None:
        """Close the files and nothing else. In a forked child: the lock stays with the parent."""
        self._end_segment()
        with suppress(OSError):
            self._lock.close()
        self.segments = deque()

    def _begin_segment(self) -> None:
        self._end_segment()
        path = self.folder / f"{self._next:08d}{SUFFIX}"
        self._next += 1  # first: an interrupt must not leave a name that is taken
        self._write = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self.segments.append(Segment(path))

    def _end_segment(self) -> None:
        if self._write >= 0:
            with suppress(OSError):
                os.close(self._write)
            self._write = -1
