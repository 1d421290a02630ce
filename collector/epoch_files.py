"""`gate_epoch_<n>.npz`: every gate of an epoch's last capture, whole."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.file_locks import take_lock
from gatewatch.collector.files import check_writable, replace_file
from gatewatch.collector.names import clean_name, path_name
from gatewatch.collector.trace import Layers

# Activations are noise to a compressor: the fastest level gives nearly the size of the slowest, in a fifth of the time.
_LEVEL = 1
_BYTES_PER_SECOND = 30e6


def save_seconds(layers: Layers) -> float:
    """Estimate how long `save_epoch` will take."""
    return sum(values.nbytes for one in layers.values() for values in one.gates.values()) / _BYTES_PER_SECOND


def save_epoch(folder: Path, layers: Layers, *, run: str, phase: str, epoch: int, step: int) -> Path:
    """Write the gates as arrays `<layer>/<gate>` of shape (batch, time, units), masked steps NaN.

    `numpy.load` reads the file; the names are those of the points. The comment of the zip says whose it is. A file of
    the same name that is another run's, or another phase's, is moved first: into a folder of that run, and in it of
    that phase, where it is not `train`.

    Args:
        folder: where `gate_epoch_<epoch>.npz` is written.
        layers: layer → its gates.
        run: the run's id.
        phase: of the run.
        epoch: from 0.
        step: of the capture.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"gate_epoch_{epoch}.npz"
    lock = os.open(folder, os.O_RDONLY)  # the folder itself, so that no lock file is left among a user's files
    try:
        with replace_file(target) as file:
            _write(file, layers, {"run": run, "phase": phase, "epoch": epoch, "step": step})
            with suppress(OSError):  # a file system without locks
                take_lock(lock, folder, wait=True)  # until the file has its name
            _move_other(target, (run, phase))
    finally:
        os.close(lock)
    return target


def check_folder(folder: Path) -> None:
    """Check that files can be written in a folder, which is made.

    Raises:
        ConfigError: they cannot.
    """
    try:
        check_writable(folder)
    except OSError as error:
        raise ConfigError(f"log_dir={str(folder)!r} cannot be written: {error.strerror}; choose another") from error


def epoch_owner(path: Path) -> tuple[str, str] | None:
    """Return the run and the phase that a file belongs to; None where it is missing or none of ours."""
    if not path.is_file():  # reading a pipe would wait
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            about: Any = json.loads(archive.comment)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RecursionError):
        return None
    run, phase = (about.get("run"), about.get("phase")) if isinstance(about, dict) else (None, None)
    return (run, phase) if isinstance(run, str) and isinstance(phase, str) else None


def _write(file: IO[bytes], layers: Layers, about: Mapping[str, str | int]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        archive.comment = json.dumps(about).encode()
        for layer, captured in layers.items():
            for gate, values in captured.gates.items():
                with archive.open(f"{clean_name(layer)}/{clean_name(gate)}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(values), allow_pickle=False)


def _move_other(target: Path, owner: tuple[str, str]) -> None:
    """Move a file of this name that belongs to another run or phase to a folder of its own."""
    present = epoch_owner(target)
    if present is not None and present != owner:
        shelf = target.parent / path_name(present[0])
        shelf = shelf if present[1] == "train" else shelf / present[1]
        shelf.mkdir(parents=True, exist_ok=True)
        target.replace(shelf / target.name)
