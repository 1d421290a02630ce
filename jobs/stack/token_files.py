"""The files that hold the tokens, a folder for each, so that each service is given its own and no other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import check_writable, replace_file

_GROUP_READS: Final[Mapping[str, int]] = {"grafana": 0o440}
"""Grafana's image runs as a user of its own, in the group 0 that this image has too."""
_OWNER_READS: Final = 0o400


def token_path(folder: Path, name: str) -> Path:
    """Return the file of a token."""
    return folder / name / f"{name}.token"


def read_token(folder: Path, name: str) -> str | None:
    """Return the token in the file; None where it holds none.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = token_path(folder, name)
    try:
        token = path.read_bytes().decode("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; see whose its folder is") from None
    return token if token.isprintable() and token else None


def check_folders(folder: Path, names: Mapping[str, object]) -> None:
    """See that every token's file could be written, before the first is made.

    Raises:
        ConfigError: one could not.
    """
    for name in names:
        parent = token_path(folder, name).parent
        try:
            check_writable(parent, 0o750)
        except OSError as error:
            raise ConfigError(
                f"the folder {parent} cannot be written: {error.strerror}; see whose it is, or name another with"
                " --tokens"
            ) from None


def write_token(folder: Path, name: str, token: str) -> None:
    """Put a token into its file: whole or not at all, and never readable by others."""
    path = token_path(folder, name)
    try:
        with replace_file(path, mode=0o600, durable=True) as file:
            file.write(token.encode() + b"\n")
            os.fchmod(file.fileno(), _GROUP_READS.get(name, _OWNER_READS))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}; make room, or see whose its folder is"
        ) from None
