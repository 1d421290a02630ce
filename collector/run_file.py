"""The file of one run and phase on this machine: the lock that says who records it, and what it says of itself."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, Final

from gatewatch.collector.file_locks import take_lock
from gatewatch.collector.files import read_json_object
from gatewatch.collector.runtime.fork import reset_in_forked_child

_FOLDER: Final = "runs"
_KEPT_DAYS: Final = 90
"""How long the file of a run is kept that nobody records any more."""


class RunFile:
    """A run's file, locked by the process that records the run.

    The lock ends with the process, however it ends. A forked child neither holds it nor lets go of it.

    Args:
        file: open, and locked.

    Attributes:
        left: what the process before has left in it; empty where there was none.
    """

    def __init__(self, file: FileIO) -> None:
        self._file: FileIO | None = file
        self.left = _read(file)
        self._size = 0
        reset_in_forked_child(self)

    def save(self, content: Mapping[str, Any]) -> None:
        """Replace what the file says; one write, so that a killed process leaves the old text or the new one.

        Raises:
            OSError: it cannot be written.
        """
        if self._file is not None:
            text = json.dumps(dict(content)).encode()
            self._size = max(self._size, os.fstat(self._file.fileno()).st_size, len(text))
            os.pwrite(self._file.fileno(), text.ljust(self._size), 0)

    def release(self) -> None:
        """Let another process record the run. Calling it again does nothing."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    after_fork_in_child = release  # which closes the child's copy alone


def lock_run(store_folder: Path, run: str, phase: str) -> RunFile | int | None:
    """Lock the file of a run and phase.

    Args:
        store_folder: the folder of the store in the spool.
        run: the run's id.
        phase: of the run.

    Returns:
        The file; where another process holds it the id of that process, None if it is unknown.

    Raises:
        OSError: the folder cannot be written, or its file system has no locks (NoFileLocksError).
    """
    path = store_folder / _FOLDER / f"{hashlib.sha256(json.dumps([run, phase]).encode()).hexdigest()[:32]}.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _forget_old(path.parent)
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        try:
            taken = take_lock(file, path)
        except BaseException:
            file.close()
            raise
        if not taken:
            holder = _read(file).get("pid")
            file.close()
            return holder if isinstance(holder, int) else None
        if _is_still(path, file):
            return RunFile(file)
        file.close()  # it was old, and has just been deleted


def _is_still(path: Path, file: FileIO) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    return False


def _read(file: FileIO) -> dict[str, Any]:
    file.seek(0)
    return read_json_object(file)


def _forget_old(folder: Path) -> None:
    """Delete the files of runs that nobody has recorded for a long time."""
    for path in _old(folder, time.time() - _KEPT_DAYS * 86_400):
        with suppress(OSError), path.open("r+b", buffering=0) as file:
            if take_lock(file, path):
                path.unlink()


def _old(folder: Path, before: float) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.stat().st_mtime < before:
                    yield Path(entry.path)
