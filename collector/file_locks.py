"""File locks between processes: the only place that takes any, and where it is found out whether they work.

Some file systems have no locks, and say so. On some each lock succeeds, whoever holds it. On some the processes of one
machine see each other's locks, and not those of other machines.
"""

from __future__ import annotations

import fcntl
import os
import platform
import tempfile
from contextlib import suppress
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Final

_LOCAL: Final = (
    *("apfs", "aufs", "bcachefs", "btrfs", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuseblk"),
    *("hfs", "jfs", "msdos", "nilfs2", "ntfs", "ntfs3", "overlay", "ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs"),
    *("ufs", "vfat", "xfs", "zfs"),
)
"""File systems that only the processes of one machine use."""


class NoFileLocksError(OSError):
    """A file system has no locks, or locks that keep nobody out. `strerror` says which, and its name."""


def take_lock(file: FileIO | int, path: Path, *, wait: bool = False) -> bool:
    """Lock a file or folder for the process, until it is closed; return False where another process holds it.

    Args:
        file: open, or its descriptor.
        path: of the file.
        wait: whether to wait until nobody else holds it.

    Raises:
        NoFileLocksError: the file system has no locks that keep others out.
    """
    descriptor = file if isinstance(file, int) else file.fileno()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise _no_locks(path, error.strerror or str(error), error.errno) from None
    if not _keeps_others_out(descriptor, path):
        raise _no_locks(path, "a locked file can be locked a second time", 0)
    return True


def check_locks(folder: Path) -> None:
    """Check that files can be locked in a folder.

    Raises:
        NoFileLocksError: they cannot.
        OSError: no file can be made in it.
    """
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        take_lock(file.fileno(), Path(file.name))


def check_record_locks(folder: Path) -> None:
    """Check that records of files can be locked in a folder, the locks of POSIX, which SQLite takes.

    Raises:
        NoFileLocksError: they cannot.
        OSError: no file can be made in it.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _no_locks(folder, error.strerror or str(error), error.errno) from None


def seconds_since_touched(path: Path) -> float:
    """Return how long ago a file was written or touched, by the clock of the file system alone.

    Raises:
        OSError: there is no such file, or none can be made beside it.
    """
    with tempfile.TemporaryFile(dir=path.parent) as now:
        return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime


def _keeps_others_out(descriptor: int, path: Path) -> bool:
    """Lock a locked file a second time, as another process would, and return whether that fails."""
    with suppress(OSError):
        # With the same mode: on NFS only what is open for writing can be locked.
        other = os.open(path, fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        try:
            if os.path.sameopenfile(other, descriptor):  # it may have been replaced meanwhile
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return False
        finally:
            os.close(other)
    return True


def _no_locks(path: Path, reason: str, number: int | None) -> NoFileLocksError:
    kind = file_system(path)
    name = "" if kind is None else f" ({kind})"
    return NoFileLocksError(number or 0, f"its file system{name} has no file locks: {reason}")


def is_shared(path: Path) -> bool:
    """Return whether other machines may see a folder and not the locks in it: it is on no file system known as local.

    Where the system does not tell, False.
    """
    kind = file_system(path)
    return kind is not None and kind not in _LOCAL


def file_system(path: Path) -> str | None:
    """Return the type of the file system of a path, such as ext4 or nfs4; None where the system does not tell."""
    where, kind, real = "", None, os.path.realpath(path)
    with suppress(OSError, ValueError), Path("/proc/self/mountinfo").open("rb") as mounts:
        for line in mounts:
            fields, _, about = line.partition(b" - ")
            point = os.fsdecode(fields.split(b" ")[4].decode("unicode_escape").encode("latin-1"))
            inside = point in ("/", real) or real.startswith(f"{point}/")
            if inside and len(point) >= len(where):  # what was mounted last covers the others
                where, kind = point, about.split(b" ")[0].decode()
    return kind


@cache
def lock_domain() -> str:
    """Return an id of what shares this process's locks: the machine since it was started, with all its containers."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
    return "".join(filter(str.isalnum, platform.node())) or "unknown"
