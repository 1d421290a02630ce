"""The folder of one writer in the spool: its files, and the lock that shows that its process is alive.

The folder is named `<time>-<lock domain>-<process>-<random digits>`. Where other machines see the spool and perhaps not
its locks, the folder of another machine is adopted only if that has not renewed its lease for a long time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from gatewatch.collector.file_locks import is_shared, lock_domain, seconds_since_touched, take_lock
from gatewatch.collector.spool.segment import SUFFIX, Segment, read_segment

LOCK: Final = "lock"
LEASE_SECONDS: Final = 3600.0
"""A living process renews its lease about twice a minute."""


def create_folder(store_folder: Path) -> tuple[Path, FileIO]:
    """Make a new folder, locked. No process can adopt it before that: until then it has another name.

    Args:
        store_folder: the folder of the store.

    Returns:
        The folder, and its lock file, which keeps it locked while it is open.

    Raises:
        NoFileLocksError: the file system has no locks.
        OSError: it cannot be made.
    """
    folder = _new_name(store_folder)
    hidden = folder.with_name(f".{folder.name}")
    hidden.mkdir(parents=True)
    lock = (hidden / LOCK).open("xb", buffering=0)
    try:
        take_lock(lock, hidden / LOCK)
        hidden.rename(folder)
    except BaseException:
        lock.close()
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return folder, lock


def adopt_folder(folder: Path) -> tuple[Path, FileIO, list[Segment]] | None:
    """Lock the folder of a process that ended, and read what it left; None where it is alive or the folder is gone.

    Returns:
        The folder, which has another name now where other machines see it; the lock file; and the segments, oldest
        first.
    """
    with suppress(OSError):
        if may_live_elsewhere(folder):
            return None
        lock = (folder / LOCK).open("r+b", buffering=0)
        try:
            if take_lock(lock, folder / LOCK):
                if is_shared(folder):  # of two machines one has it, and one that was suspended meanwhile finds it gone
                    renew_lease(folder)
                    folder = folder.rename(_new_name(folder.parent))
                return folder, lock, [read_segment(path)[0] for path in sorted(folder.glob(f"*{SUFFIX}"))]
        except OSError:  # there are no locks, or it cannot be read now: another time
            lock.close()
            raise
        lock.close()  # its process is alive
    return None


def may_live_elsewhere(folder: Path) -> bool:
    """Return whether a folder is held by a process of another machine, whose lock this one may not see.

    Raises:
        OSError: the folder is gone, or cannot be read now.
    """
    elsewhere = folder.name.split("-")[1:2] != [lock_domain()] and is_shared(folder)
    return elsewhere and seconds_since_touched(folder / LOCK) < LEASE_SECONDS


def renew_lease(folder: Path) -> None:
    """Show other machines that the process that holds a folder is alive."""
    with suppress(OSError):
        os.utime(folder / LOCK)


def release_folder(folder: Path, lock: FileIO) -> None:
    """Unlock a folder, so that another process may adopt it; delete it where no segment is left."""
    with suppress(OSError):
        if not any(name.endswith(SUFFIX) for name in os.listdir(folder)):  # noqa: PTH208 - glob hides errors
            (folder / LOCK).unlink()
            folder.rmdir()
    lock.close()


def _new_name(store_folder: Path) -> Path:
    return store_folder / f"{time.time_ns():020d}-{lock_domain()}-{os.getpid()}-{secrets.token_hex(3)}"
