"""The folder where the service keeps what it would rather not compute again."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError


def state_folder(configured: str | None, destination: Mapping[str, str]) -> Path:
    """The folder of a store: in GATEWATCH_STATE, else where `[jobs] state` says, else in the user's folder for state.

    Raises:
        ConfigError: there is no such user, or no home directory.
    """
    named = read_variable("GATEWATCH_STATE") or configured
    base = read_variable("XDG_STATE_HOME")
    try:
        if named:
            root = Path(named).expanduser()
        else:
            root = (Path(base) if base else Path.home() / ".local" / "state") / "gatewatch"
    except RuntimeError as error:
        raise ConfigError(f"the folder for state: {error}; name another in GATEWATCH_STATE") from None
    return root.absolute() / hashlib.sha256(json.dumps(dict(destination), sort_keys=True).encode()).hexdigest()[:16]


def check_state_folder(folder: Path) -> None:
    """Make the folder where it is missing, and see that it can be written.

    Raises:
        ConfigError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"the state folder {folder} cannot be written: {error.strerror or error}; name another in GATEWATCH_STATE "
            "or [jobs] state"
        ) from None
