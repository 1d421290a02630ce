"""The durable queue on disk between a training and a store: bounded, for any number of processes, safe to kill.

Each process writes a folder of its own below the folder of the store. What a process that died left there is adopted by
the next one that ships to the same store, or by `gatewatch spool flush`.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import replace_file
from gatewatch.collector.spool.segment import SUFFIX, Batch
from gatewatch.collector.spool.writer_dir import LOCK, WriterDir
from gatewatch.collector.user_folders import folder_of_store, state_folder

SEGMENT_BYTES: Final = 4 * 2**20
_REJECTED_BYTES: Final = 8 * 2**20
DESTINATION: Final = "destination.json"
REJECTED: Final = "rejected.lp"
ABOUT: Final = "# "


class Spool:
    """The queue of one store.

    It is safe for any number of threads, and for a process that forks: the child begins a folder of its own.

    Args:
        root: the folder of the spools of all stores.
        destination: the arguments that `reopen_store` needs, without secrets.
        max_bytes: how many bytes may wait on disk for the store; beyond that the oldest segments are dropped.
        segment_bytes: the size at which a file is followed by the next.

    Attributes:
        dropped: points that are lost, for want of room, or in a record that was damaged or deleted.
        damaged: records that were damaged, torn or deleted, and skipped.
    """

    def __init__(
        self,
        root: Path,
        destination: Mapping[str, str],
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.folder = root / folder_of_store(destination)
        self.destination = dict(destination)
        self._max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max(1, max_bytes // 4))
        self._lock = threading.Lock()
        self._own: WriterDir | None = None
        self._adopted: list[WriterDir] = []
        self._in_flight: Batch | None = None
        self._closed = False
        self.dropped = self.damaged = 0
        _spools.add(self)

    def check(self) -> None:
        """See whether it can be written.

        Raises:
            ConfigError: it cannot.
        """
        try:
            with self._lock:
                self._own_dir()
        except OSError as error:
            raise ConfigError(
                f"the spool folder {self.folder.parent} cannot be written: {error.strerror or error}; name another in "
                "GATEWATCH_SPOOL"
            ) from None

    def append(self, lines: bytes, points: int) -> None:
        """Keep encoded points until they are shipped. Once it returns they survive the death of the process.

        Raises:
            OSError: they cannot be written; nothing of them was.
        """
        with self._lock:
            if self._own_dir().append(lines, points, self._segment_bytes):
                self._make_room()

    def next_batch(self, most: int) -> Batch | None:
        """Return the oldest points, at most `most` or one record; those of writers that have ended come first.

        Raises:
            OSError: they cannot be read now.
        """
        with self._lock:
            self._in_flight, problem = None, None
            for writer in self._writer_dirs():
                try:
                    self._in_flight = writer.next_batch(most)
                except OSError as error:  # a part that cannot be read does not hold up the others
                    problem = error
                    continue
                if self._in_flight is not None:
                    return self._in_flight
                if writer is not self._own:
                    self._adopted.remove(writer)
                    writer.close()
            if problem is not None:
                raise problem
            return None

    def done(self, batch: Batch) -> None:
        """Mark the points of a batch as stored or rejected: they are not returned again."""
        with self._lock:
            self._in_flight = None
            for writer in self._writer_dirs():
                if batch.segment in writer.segments:
                    self.damaged += batch.damaged
                    self.dropped += batch.lost
                    writer.done(batch)

    def adopt(self) -> int:
        """Adopt what dead processes left for this store; return the number of points."""
        with self._lock:
            mine = {writer.folder for writer in self._writer_dirs()}
        # Without the lock: reading what was left takes a while, and a training may want to append.
        others = [folder for folder in _list_writer_dirs(self.folder) if folder not in mine]
        adopted = list(filter(None, map(WriterDir.adopt, others)))
        points = 0
        with self._lock:
            for writer in adopted:
                if self._closed:
                    writer.close()
                else:
                    self._adopted.append(writer)
                    self.damaged += sum(segment.torn for segment in writer.segments)
                    points += writer.points
        return points

    def reject(self, lines: Sequence[tuple[bytes, str]]) -> None:
        """Quarantine lines that the store rejected, each after a comment that says when and why. Never raises."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        text = b"".join(f"{ABOUT}{now} {' '.join(why.split())}\n".encode() + line + b"\n" for line, why in lines)
        file = self.folder / REJECTED
        with suppress(OSError), self._lock:
            self._make_folder()
            if file.exists() and file.stat().st_size > _REJECTED_BYTES:
                file.replace(file.with_suffix(".1.lp"))
            with file.open("ab") as stream:
                stream.write(text)

    @property
    def waiting(self) -> int:
        """The number of points that wait for this process to ship them."""
        with self._lock:
            return sum(writer.points for writer in self._writer_dirs())

    @property
    def waiting_bytes(self) -> int:
        """The bytes on disk that wait for this process to ship them."""
        with self._lock:
            return sum(segment.size - segment.shipped for writer in self._writer_dirs() for segment in writer.segments)

    def close(self) -> None:
        """Close the files; what is left can be adopted by the next process."""
        with self._lock:
            self._closed = True
            for writer in self._writer_dirs():
                writer.close()
            self._own, self._adopted = None, []

    def _writer_dirs(self) -> list[WriterDir]:
        return [*self._adopted, *([] if self._own is None else [self._own])]

    def _own_dir(self) -> WriterDir:
        if self._own is None or not self._own.folder.exists():  # somebody may have cleared the folder
            if self._own is not None:
                self.damaged += sum(len(segment.records) for segment in self._own.segments)
                self.dropped += self._own.points
                self._own.forget()
                self._own = None
            self._make_folder()
            self._own = WriterDir.create(self.folder / f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(3)}")
        return self._own

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = self.folder / DESTINATION
        if not about.exists():
            with replace_file(about) as file:
                file.write(json.dumps(self.destination).encode())

    def _make_room(self) -> None:
        mine = self._writer_dirs()
        others = set(_list_writer_dirs(self.folder)) - {writer.folder for writer in mine}
        size = sum(_size(folder) for folder in others) + sum(writer.size for writer in mine)
        flying = None if self._in_flight is None else self._in_flight.segment
        for writer in mine:
            for segment in list(writer.segments)[: None if writer is not self._own else -1]:
                if size <= self._max_bytes:
                    return
                if segment is not flying:
                    size -= segment.size
                    self.dropped += segment.points
                    writer.remove(segment)

    def _reset_after_fork(self) -> None:
        self._lock = threading.Lock()
        for writer in self._writer_dirs():
            writer.forget()
        self._own, self._adopted, self._in_flight = None, [], None
        self.dropped = self.damaged = 0


def spool_root(path: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of the spools: GATEWATCH_SPOOL, else the configured path, else the user's folder for state.

    Raises:
        ConfigError: as of `state_folder`.
    """
    return state_folder("GATEWATCH_SPOOL", path, "[spool] path", "spool")


def list_paths(folder: Path, pattern: str) -> list[Path]:
    """As `Path.glob`, which fails where a folder vanishes under it: other processes come and go here."""
    return sorted(folder / name for name in glob.glob(pattern, root_dir=folder))  # noqa: PTH207 - said above


def _list_writer_dirs(folder: Path) -> list[Path]:
    return [lock.parent for lock in list_paths(folder, f"[0-9]*/{LOCK}")]


def _size(folder: Path) -> int:
    size = 0
    for path in list_paths(folder, f"*{SUFFIX}"):
        with suppress(OSError):
            size += path.stat().st_size
    return size


_spools: weakref.WeakSet[Spool] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for spool in list(_spools):
        spool._reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
