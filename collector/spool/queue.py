"""The durable queue on disk between a training and a store: bounded, for any number of processes, safe to kill.

Each writer, such as a run, has a folder of its own below the folder of the store. If its process dies, the next process
that ships to the same store adopts the folder, or `gatewatch spool flush` does.
"""

from __future__ import annotations

import glob
import os
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.file_locks import NoFileLocksError, take_lock
from gatewatch.collector.runtime.fork import reset_in_forked_child
from gatewatch.collector.spool.segment import SUFFIX, Batch, Segment
from gatewatch.collector.spool.writer_dir import LOCK, adopt_folder, create_folder, release_folder, renew_lease
from gatewatch.collector.user_folders import note_store, state_folder, store_folders

BATCH_POINTS: Final = 5_000
"""Points of a write: what InfluxDB's own documentation calls best."""
SEGMENT_BYTES: Final = 4 * 2**20
MEMORY_BYTES: Final = 64 * 2**20
"""What is kept in memory while the disk takes nothing."""
_REJECTED_BYTES: Final = 8 * 2**20
REJECTED: Final = "rejected.lp"
ABOUT: Final = "# "


class Spool:
    """The queue of one writer, such as a run, for one store. It has a folder of its own below the folder of the store.

    It is thread-safe, and safe in a process that forks: the child begins a folder of its own.

    Args:
        root: the folder of the spools of all stores.
        destination: the arguments that `reopen_store` needs, without secrets.
        max_bytes: how many bytes may wait on disk for the store; beyond that the oldest segments are dropped.

    Attributes:
        segment_bytes: the size at which the next file is begun.
        segment_points: the maximum number of points in a file; a single record may have more.
        dropped: points that were lost because there was no room, or because a record was damaged or deleted.
        damaged: number of records that were damaged, torn or deleted, and skipped.
        overflowed: whether points were dropped because there was no room, on disk or in memory.
        disk_error: the last error of a write to the disk.
    """

    def __init__(self, root: Path, destination: Mapping[str, str], max_bytes: int) -> None:
        self.folder, *self._others = store_folders(root, destination)
        self.destination = dict(destination)
        self._max_bytes = max_bytes
        self.segment_bytes = min(SEGMENT_BYTES, max_bytes // 4)
        self.segment_points = BATCH_POINTS
        self._closed = False
        self._begin()
        reset_in_forked_child(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._locks: dict[Path, FileIO] = {}
        self._own: Path | None = None
        self._number = 0
        self._segments: list[Segment] = []
        self._memory: deque[Batch] = deque()
        self._in_flight: Batch | None = None
        self._written = self.segment_bytes  # the first write makes room: many short runs may fill the spool together
        self.dropped = self.damaged = 0
        self.overflowed = False
        self.disk_error: OSError | None = None

    def after_fork_in_child(self) -> None:
        """Begin anew: what waits is the parent's, and so are the locks of its folders."""
        for segment in self._segments:
            segment.end()
        for lock in self._locks.values():
            lock.close()
        self._begin()

    def check(self) -> None:
        """Check that the spool can be written.

        Raises:
            ConfigError: it cannot.
        """
        try:
            with self._lock:
                self._own_folder()
        except NoFileLocksError as error:
            problem = f"the spool folder {self.folder.parent} cannot be used: {error.strerror}"
            raise ConfigError(f"{problem}; name one on a local disk in GATEWATCH_SPOOL") from None
        except OSError as error:
            problem = f"the spool folder {self.folder.parent} cannot be written: {error.strerror or error}"
            raise ConfigError(f"{problem}; name another in GATEWATCH_SPOOL") from None

    def append(self, lines: bytes, points: int) -> None:
        """Keep encoded points until they are shipped.

        On disk they survive the death of the process. While the disk takes nothing they stay in memory.
        """
        with self._lock:
            try:
                self._write(lines, points)
            except OSError as error:
                self.disk_error = error
                self._memory.append(Batch(lines, points))
                while len(self._memory) > 1 and sum(len(batch.lines) for batch in self._memory) > MEMORY_BYTES:
                    self.dropped += self._memory.popleft().points
                    self.overflowed = True

    def save_memory(self) -> int:
        """Try the disk once more with what is in memory; return the number of points that it does not take.

        They are lost.
        """
        with self._lock:
            with suppress(OSError):
                while self._memory:
                    self._write(self._memory[0].lines, self._memory[0].points)
                    self._memory.popleft()
            lost = sum(batch.points for batch in self._memory)
            self.dropped += lost
            self._memory.clear()
            return lost

    def next_batch(self, skipped: Collection[Segment | Batch] = ()) -> Batch | None:
        """Return the oldest points, of one segment; those of writers that have ended come first.

        Args:
            skipped: segments, and batches in memory, that are not wanted now.

        Raises:
            OSError: they cannot be read now.
        """
        with self._lock:
            self._in_flight, problem = None, None
            for segment in self._segments:
                if segment in skipped:
                    continue
                try:
                    self._in_flight = segment.read()
                    return self._in_flight
                except OSError as error:  # a file that cannot be read does not hold up the others
                    problem = error
            batch = next((batch for batch in self._memory if batch not in skipped), None)
            if problem is not None and batch is None:
                raise problem
            return batch

    def done(self, batch: Batch) -> None:
        """Forget the points of a batch, which are stored or rejected."""
        with self._lock:
            self._in_flight = None
            segment = batch.segment
            if segment is None:
                with suppress(ValueError):  # there was no room for it meanwhile
                    self._memory.remove(batch)
            elif segment in self._segments:
                if batch.points < segment.points:  # some were damaged or deleted meanwhile
                    self.damaged += 1
                    self.dropped += segment.points - batch.points
                self._remove(segment)

    def adopt(self) -> int:
        """Adopt what dead processes left for this store; return the number of points."""
        with self._lock:
            mine = set(self._locks)
        for folder in mine:
            renew_lease(folder)
        adopted = 0
        left = {lock.parent for store in (self.folder, *self._others) for lock in list_paths(store, f"[0-9]*/{LOCK}")}
        for folder in sorted(left - mine, key=lambda folder: folder.name, reverse=True):
            found = adopt_folder(folder)  # without the lock: reading takes a while, and a training may want to append
            if found is None:
                continue
            adopted_folder, lock, segments = found
            with self._lock:
                if self._closed or not segments:
                    release_folder(adopted_folder, lock)
                    continue
                self._locks[adopted_folder] = lock
                self._segments[:0] = segments
                self.damaged += sum(segment.damaged for segment in segments)
                adopted += sum(segment.points for segment in segments)
        return adopted

    def reject(self, lines: Sequence[tuple[bytes, str]]) -> None:
        """Quarantine lines that the store rejected, each after a comment that says when and why.

        Raises:
            OSError: the disk does not take them; none of them is there.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = b"".join(f"{ABOUT}{now} {' '.join(why.split())}\n".encode() + line + b"\n" for line, why in lines)
        file = self.folder / REJECTED
        with self._lock:
            self._make_folder()
            if file.exists() and file.stat().st_size > _REJECTED_BYTES:
                file.replace(file.with_suffix(".1.lp"))
            with file.open("ab", buffering=0) as stream:
                take_lock(stream, file, wait=True)  # for each process that ships to this store
                size = stream.seek(0, os.SEEK_END)
                try:
                    written = 0
                    while written < len(text):
                        written += stream.write(text[written:])
                except OSError:
                    stream.truncate(size)
                    raise

    @property
    def held_here(self) -> bool:
        """Whether this thread is in the middle of a change, as where a finalizer has interrupted it."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]  # as threading.Condition asks it

    @property
    def waiting(self) -> int:
        """The number of points that wait for this process to ship them."""
        return self.waiting_beside(())

    def waiting_beside(self, skipped: Collection[Segment | Batch]) -> int:
        """Return the number of points that wait, without those of these segments and batches in memory."""
        return sum(each.points for each in self.all_waiting() if each not in skipped)

    def all_waiting(self) -> list[Segment | Batch]:
        """Return the segments, and the batches in memory, that wait."""
        with self._lock:
            return [*self._segments, *self._memory]

    @property
    def waiting_bytes(self) -> int:
        """The bytes on disk that wait for this process to ship them."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    def close(self) -> None:
        """Close the files; what is left can be adopted by the next process."""
        with self._lock:
            self._closed = True
            for segment in self._segments:
                if segment.points:
                    segment.end()
                else:
                    segment.remove()
            for folder, lock in self._locks.items():
                release_folder(folder, lock)
            self._own, self._locks, self._segments = None, {}, []

    def _own_folder(self) -> Path:
        if self._own is not None and not self._own.exists():  # somebody has cleared it; what is gone is counted later
            self._locks.pop(self._own).close()
            self._own = None
            for segment in self._segments:
                segment.end()
        if self._own is None:
            self._make_folder()
            folder, lock = create_folder(self.folder)
            self._locks[folder] = lock
            self._own = folder
        return self._own

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        note_store(self.folder, self.destination)

    def _write(self, lines: bytes, points: int) -> None:
        folder = self._own_folder()
        last = self._segments[-1] if self._segments else None
        if last is None or not last.has_room(points, self.segment_bytes, self.segment_points):
            if last is not None:
                last.end()
            self._number += 1  # first: an interrupt must not leave a name that is taken
            last = Segment.begin(folder / f"{self._number:08d}{SUFFIX}")
            self._segments.append(last)
        last.append(lines, points)
        self._written += len(lines)
        if self._written >= self.segment_bytes:
            self._written = 0
            self._make_room()

    def _make_room(self) -> None:
        """Drop the oldest segments of this process, where those of all processes take more than they may."""
        size = 0
        for path in (path for store in (self.folder, *self._others) for path in list_paths(store, f"[0-9]*/*{SUFFIX}")):
            with suppress(OSError):  # shipped in this moment
                size += path.stat().st_size
        in_flight = None if self._in_flight is None else self._in_flight.segment
        for segment in self._segments[:-1]:  # the last one is being written
            if size > self._max_bytes and segment is not in_flight:
                size -= segment.size
                self.dropped += segment.points
                self.overflowed = True
                self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        segment.remove()
        self._segments.remove(segment)
        folder = segment.path.parent
        if folder in self._locks and folder != self._own and all(one.path.parent != folder for one in self._segments):
            release_folder(folder, self._locks.pop(folder))


def spool_root(path: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the spools: GATEWATCH_SPOOL, else the configured path, else the user's folder for state.

    Raises:
        ConfigError: as of `state_folder`.
    """
    return state_folder("GATEWATCH_SPOOL", path, "[spool] path", "spool")


def list_paths(folder: Path, pattern: str) -> list[Path]:
    """As `Path.glob`, which fails where a folder vanishes under it: other processes come and go here."""
    return sorted(folder / name for name in glob.glob(pattern, root_dir=folder))  # noqa: PTH207 - said above
