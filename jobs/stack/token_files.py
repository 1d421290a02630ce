"""The files that hold the tokens, a folder for each, so that each service is given its own and no other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import check_writable, replace_file


def token_path(folder: Path, name: str) -> Path:
    """Return the file of a token."""
    return folder / name / f"{name}.token"


def read_token(folder: Path, name: str) -> str | None:
    """Return the token in the file; None where it holds none.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = token_path(folder, name)
    with _config_error(f"{path} cannot be read", "see whose its folder is"):
        try:
            token = path.read_bytes().decode("ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return None
    return token if token.isprintable() and token else None


def check_folders(folder: Path, names: Iterable[str]) -> None:
    """See that every token's file could be written, before the first is made.

    Raises:
        ConfigError: one could not.
    """
    for name in names:
        parent = token_path(folder, name).parent
        with _config_error(f"the folder {parent} cannot be written", "see whose it is, or name another with --tokens"):
            check_writable(parent, 0o750)


def write_token(folder: Path, name: str, token: str) -> None:
    """Put a token into its file: whole or not at all, and never readable by others."""
    path = token_path(folder, name)
    remedy = "make room, or see whose its folder is"
    with _config_error(f"{path} cannot be written", remedy), replace_file(path, mode=0o600, durable=True) as file:
        file.write(token.encode() + b"\n")
        # Grafana's image runs as a user of its own, in the group 0 that this image has too.
        os.fchmod(file.fileno(), 0o440 if name == "grafana" else 0o400)


@contextmanager
def _config_error(problem: str, remedy: str) -> Iterator[None]:
    """Turn an error of the system into one that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{problem}: {error.strerror}; {remedy}") from None
