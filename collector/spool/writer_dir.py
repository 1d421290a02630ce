"""The folder of one writer in the spool: its files, and the lock that shows that its process is alive."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from gatewatch.collector.spool.segment import SUFFIX, Segment, read_segment

LOCK: Final = "lock"


def create_folder(folder: Path) -> FileIO:
    """Make a new folder, locked. No process can adopt it before that: until then it has another name.

    Returns:
        Its lock file, which keeps the folder locked while it is open.

    Raises:
        OSError: it cannot be made, or the file system has no locks.
    """
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(parents=True)
    lock = (hidden / LOCK).open("xb", buffering=0)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    hidden.rename(folder)
    return lock


def adopt_folder(folder: Path) -> tuple[FileIO, list[Segment]] | None:
    """Lock the folder of a process that ended, and read what it left; None where it is alive or the folder is gone.

    Returns:
        The lock file, and the segments, oldest first.
    """
    with suppress(OSError):
        lock = (folder / LOCK).open("r+b", buffering=0)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock, [read_segment(path)[0] for path in sorted(folder.glob(f"*{SUFFIX}"))]
        except OSError:  # its process is alive, or it cannot be read now: another time
            lock.close()
    return None


def release_folder(folder: Path, lock: FileIO) -> None:
    """Unlock a folder, so that another process may adopt it; delete it where no segment is left."""
    with suppress(OSError):
        if not any(name.endswith(SUFFIX) for name in os.listdir(folder)):  # noqa: PTH208 - glob hides errors
            (folder / LOCK).unlink()
            folder.rmdir()
    lock.close()
