"""The folder of the jobs' cache and of what the alerts remember, for each store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gatewatch.collector import user_folders
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.file_locks import NoFileLocksError, check_locks
from gatewatch.collector.files import check_writable


def state_folder(configured: str | None, destination: Mapping[str, str]) -> Path:
    """Return a store's folder: in GATEWATCH_STATE, else in the configured one, else in the user's folder for state.

    Args:
        configured: `[jobs] state` of the configuration.
        destination: of the store.

    Raises:
        ConfigError: there is no such user, or no home directory.
    """
    root = user_folders.state_folder("GATEWATCH_STATE", configured, "[jobs] state")
    return user_folders.store_folders(root, destination)[0]


def check_state_folder(folder: Path) -> None:
    """Make the folder where it is missing, and check that it can be written and locked.

    Raises:
        ConfigError: it cannot.
    """
    try:
        check_writable(folder)
        check_locks(folder)
    except NoFileLocksError as error:
        raise ConfigError(
            f"the state folder {folder} cannot be used: {error.strerror}; name one on a local disk in GATEWATCH_STATE "
            "or [jobs] state"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"the state folder {folder} cannot be written: {error.strerror or error}; name another in GATEWATCH_STATE "
            "or [jobs] state"
        ) from None
