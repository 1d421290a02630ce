"""Files that are whole or not there, and a folder that one process has to itself."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_LOCK: Final = "lock"

log = logging.getLogger("gatewatch")
T = TypeVar("T")


@contextmanager
def owned(folder: Path) -> Iterator[bool]:
    """Whether the folder is this process's own inside; it is not where another is at it.

    Raises:
        OSError: the folder cannot be made or locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(lock)


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file whole or not at all.

    Args:
        path: of the file; its folder is made where missing.
        content: all of it.
        durable: whether it must be on the disk on return, for the machine may fail; a process that is killed takes
            nothing with it either way.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    temporary.replace(path)
    if not durable:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name is on the disk only with the folder
    finally:
        os.close(folder)


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    from pydantic import TypeAdapter  # noqa: PLC0415 - loads slowly

    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    adapter: TypeAdapter[T] = _adapters[kind]
    return adapter


_adapters: Final[dict[type[Any], TypeAdapter[Any]]] = {}


def load(path: Path, kind: type[T]) -> T | None:
    """What a file holds as JSON of a dataclass; None where there is none.

    One that is damaged is put aside, and said.

    Raises:
        OSError: it cannot be read.
    """
    try:
        found = _adapter(kind).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        aside = path.with_suffix(".damaged")
        log.warning("gatewatch: %s is damaged; it is put aside as %s, and what it said is not known", path, aside.name)
        with suppress(OSError):
            path.replace(aside)
        return None
    return found
