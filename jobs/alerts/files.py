"""Files that are whole or not there, and a folder that one process has to itself."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gatewatch.collector.files import replace_file

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
    """Write a file whole or not at all, and make its folder where it is missing.

    Args:
        path: of the file.
        content: all of it.
        durable: whether it must survive a failure of the machine.

    Raises:
        OSError: it cannot be written; the old file is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path, durable=durable) as file:
        file.write(content)


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
