"""Where Gatewatch keeps its own files on this machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_state_path

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError


def state_folder(variable: str, configured: str | os.PathLike[str] | None, option: str, default: str = "") -> Path:
    """Return the folder that the environment or the configuration names, else one in the user's folder for state.

    Args:
        variable: environment variable that names the folder; it comes before the configuration.
        configured: the folder of the configuration; None where it names none.
        option: where the configuration names it, for the error.
        default: name of the folder below the user's folder for state: on Linux `$XDG_STATE_HOME/gatewatch`, by default
            `~/.local/state/gatewatch`; elsewhere as platformdirs has it.

    Returns:
        An absolute path; nothing is made there.

    Raises:
        ConfigError: `~user` names no user, or there is no home directory.
    """
    named = read_variable(variable) or configured
    base = read_variable("XDG_STATE_HOME")  # platformdirs would keep the carriage return of a .env file from Windows
    try:
        if named:
            return Path(named).expanduser().absolute()
        home = Path(base).absolute() / "gatewatch" if base else user_state_path("gatewatch", appauthor=False)
    except RuntimeError:
        problem = f"{variable} or {option}, {str(named)!r}: there is no such user"
        raise ConfigError(problem if named else f"there is no home directory; name a folder in {variable}") from None
    return home / default


def folder_of_store(destination: Mapping[str, str]) -> str:
    """Return the name of a store's own folder: 16 hexadecimal digits.

    Args:
        destination: what the store is opened by, without secrets.
    """
    return hashlib.sha256(json.dumps(dict(destination), sort_keys=True).encode()).hexdigest()[:16]
