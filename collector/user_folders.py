"""Where Gatewatch keeps its own files on this machine."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from platformdirs import user_state_path

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import checked_path, read_json_object, replace_file

DESTINATION: Final = "destination.json"
"""The file in a store's folder that says which store it is."""
BUCKET_ID: Final = "bucket_id"
"""In a destination, the id of a bucket of InfluxDB."""


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
            return checked_path(named, f"{variable} or {option}").expanduser().absolute()
        home = Path(base).absolute() / "gatewatch" if base else user_state_path("gatewatch", appauthor=False)
    except RuntimeError:
        problem = f"{variable} or {option}, {str(named)!r}: there is no such user"
        raise ConfigError(problem if named else f"there is no home directory; name a folder in {variable}") from None
    return home / default


def store_folders(root: Path, destination: Mapping[str, str]) -> list[Path]:
    """Return the folders of a store, which need not exist: first its own, then others in which things of it may lie.

    A folder is named after the address by which the store was first opened. It belongs to a bucket of InfluxDB as soon
    as the bucket's id is known: by whichever name that is opened, and not where the name stands for another by now.

    Args:
        root: holds the folders of all stores.
        destination: of the store, with BUCKET_ID where it is known.
    """
    named = root / _digest({name: value for name, value in destination.items() if name != BUCKET_ID})
    bucket = destination.get(BUCKET_ID)
    if bucket is None:
        return [named]
    # Path.glob fails where a folder vanishes under it: other processes come and go here.
    notes = {root / name: _note(root / name) for name in glob.glob("*", root_dir=root)}  # noqa: PTH207
    of_server = {folder: note for folder, note in notes.items() if note.get("url") == destination.get("url")}
    owned = sorted(f for f, note in of_server.items() if bucket in (note.get(BUCKET_ID), note.get("bucket")))
    if named in owned or not (owned or BUCKET_ID in notes.get(named, {})):
        own = named
    else:
        own = owned[0] if owned else root / _digest({"url": destination["url"], BUCKET_ID: bucket})
    return [own, *(folder for folder in dict.fromkeys([*owned, named]) if folder != own)]


def note_store(folder: Path, destination: Mapping[str, str]) -> None:
    """Note in a folder that exists which store it belongs to; a bucket, once noted, stays.

    Raises:
        OSError: it cannot be written.
    """
    note = _note(folder)
    if not note or (BUCKET_ID in destination and BUCKET_ID not in note):
        with replace_file(folder / DESTINATION) as file:
            file.write(json.dumps(dict(destination)).encode())


def _note(folder: Path) -> dict[str, str]:
    with suppress(OSError), (folder / DESTINATION).open("rb") as file:
        return read_json_object(file)
    return {}


def _digest(content: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(content), sort_keys=True).encode()).hexdigest()[:16]
