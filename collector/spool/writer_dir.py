"""The folder of one writer in the spool: its files, oldest first, and the lock that shows that it is alive.

A record is written with one call of the operating system, so that it survives the death of the process.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from gatewatch.collector.spool.segment import NEW, SUFFIX, Batch, Segment, as_record, read_batch, read_segment

LOCK: Final = "lock"


class WriterDir:
    """A folder of segments that one process writes, or that another adopted from a process that died.

    Not for several threads at once: the spool holds a lock of its own.

    Args:
        folder: its path.
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
        """Make a new folder. No process can adopt it before it is locked: until then it has another name.

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
        """Adopt the folder of a process that ended, with what it left; None where it is alive or the folder is gone."""
        try:
            lock = os.open(folder / LOCK, os.O_RDWR)
        except OSError:
            return None
        writer = cls(folder, lock)
        try:
            if _try_lock(lock) and folder.exists():
                writer.segments.extend(map(read_segment, sorted(folder.glob(f"*{SUFFIX}"))))
                return writer
        except OSError:  # it cannot be read now: another time
            pass
        writer.forget()
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
        """Write a record at the end; return whether that began a new segment.

        Raises:
            OSError: nothing was written: the disk is full, the folder is gone.
        """
        fresh = self._write < 0 or self._is_torn() or self.segments[-1].size >= segment_bytes
        if fresh:
            self._begin_segment()
        segment = self.segments[-1]
        record = as_record(lines, points)
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
        """Return the oldest records of one segment, at most `most` points but at least one; None where none wait.

        Raises:
            OSError: they cannot be read now.
        """
        while self.segments:
            segment = self.segments[0]
            batch = read_batch(segment, most)
            if batch is not None:
                return batch
            if segment is self.segments[-1] and self._write >= 0:
                return None
            self.remove(segment)
        return None

    def done(self, batch: Batch) -> None:
        """Mark a batch as stored: neither this process nor one that adopts the folder reads it again."""
        segment = batch.segment
        segment.pass_over(batch.end)
        if segment.points == 0 and not (segment is self.segments[-1] and self._write >= 0):
            self.remove(segment)
            return
        segment.keep_shipped()

    def remove(self, segment: Segment) -> None:
        """Delete a segment."""
        if segment is self.segments[-1]:
            self._end_segment()
        self.segments.remove(segment)
        with suppress(OSError):
            segment.path.unlink()

    def close(self) -> None:
        """Close the files: an empty folder is deleted, another process may adopt one that is not."""
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
            if os.write(self._write, NEW) < len(NEW):
                raise OSError("the disk is full")
        except OSError:
            self.remove(self.segments[-1])
            raise

    def _end_segment(self) -> None:
        if self._write >= 0:
            with suppress(OSError):
                os.close(self._write)
            self._write = -1


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
