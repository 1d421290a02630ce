"""Read small files, replace files whole, and check paths and folders before work begins."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader, FileIO
from pathlib import Path
from typing import IO, Any, Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.text import safe_repr

_MOST_BYTES: Final = 2**16
_SMALL: Final = 2**20
"""Bytes of the largest file that a person writes: a configuration, a token, a query."""


def checked_path(path: Any, source: str) -> Path:
    """Return what a user gave as a path, where it can be one.

    Args:
        path: text or an `os.PathLike`.
        source: where it was given, for the error.

    Raises:
        ConfigError: it is something else, or no file can have that name: it holds a NUL or a lone surrogate.
    """
    try:
        if b"\0" not in os.fsencode(path):
            return Path(path)
        problem = "it holds the character NUL"
    except (TypeError, ValueError):
        problem = "it is no text that names a file"
    raise ConfigError(f"{source}: {safe_repr(path)} cannot be a path, since {problem}; name another")


def read_small_file(path: Path, *, pipes: bool = False) -> bytes:
    """Read a file that a person has written; a folder, and what is too large or never ends, is refused at once.

    Args:
        path: of the file.
        pipes: whether it may be a pipe, which is then waited for.

    Raises:
        OSError: it cannot be read; its `strerror` says why.
    """

    def opened(name: str, flags: int) -> int:
        return os.open(name, flags if pipes else flags | os.O_NONBLOCK)

    with BufferedReader(FileIO(path, opener=opened)) as file:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode) and not pipes:
            raise OSError(errno.ESPIPE, "it is a pipe; name a file", str(path))
        content = file.read(_SMALL + 1) or b""
    if len(content) > _SMALL:
        raise OSError(errno.EFBIG, "it is larger than 1 MiB", str(path))
    return content


@contextmanager
def replace_file(path: Path, *, mode: int = 0o666, durable: bool = False) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its place at the end of the block.

    Readers find the old file or the whole new one. Where the block raises, the old file stays.

    Args:
        path: the file; its folder must exist.
        mode: permissions of the new file, less the process's umask.
        durable: whether the file must survive a failure of the machine; it survives the end of the process in any case.

    Raises:
        OSError: the file cannot be written.
    """
    # A short name of its own: the file's name may have the greatest length that there is.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name is on the disk only with the folder
        finally:
            os.close(folder)


def check_writable(folder: Path, mode: int = 0o777) -> None:
    """Make a folder where it is missing, and check that files can be written in it.

    Args:
        folder: made with its parents.
        mode: permissions of a folder that is made, less the process's umask.

    Raises:
        OSError: they cannot.
    """
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def read_json_object(file: IO[bytes]) -> dict[str, Any]:
    """Return what a small file holds as a JSON object; an empty one where it is damaged or larger than 64 KiB."""
    with suppress(OSError, ValueError, RecursionError):  # which deep nesting raises
        content = json.loads(file.read(_MOST_BYTES + 1)[:_MOST_BYTES])
        if isinstance(content, dict):
            return content
    return {}
