"""The gates that the collector saved once per epoch, read back for the heatmaps."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.schema import clean_name, path_name
from jobs.report.panels import GRU_PANELS, LSTM_PANELS, batch_mean, thin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_SHOWN: Final = frozenset(LSTM_PANELS) | frozenset(GRU_PANELS)
_NAME: Final = re.compile(r"gate_epoch_(\d+)\.npz")


@dataclass
class Epochs:
    """What was found of a run's files.

    Attributes:
        layers: layer → label of the epoch → gate → (time, units), the mean over the batch, NaN where masked.
        notes: one line for each thing that was missing or could not be read.
    """

    layers: dict[str, dict[str, dict[str, NDArray[np.float32]]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_epochs(config: Mapping[str, Any], run: str, *, frames: int, layers: int) -> Epochs:
    """Read `gate_epoch_<n>.npz` of a run from its folder, or from the run's own folder inside it.

    Files of other runs are passed over; those that cannot be read are named in the notes. Nothing is raised.

    Args:
        config: the run's configuration, whose `log_dir` says where to look.
        run: whose files; the comment of the zip says so.
        frames: how many epochs of all layers together to read; evenly spread where there are more.
        layers: how many layers will be shown, which share those frames.
    """
    found = Epochs()
    if not isinstance(folder := config.get("log_dir"), str) or not folder:
        found.notes.append("The run's configuration names no log_dir, so no epoch files were looked for.")
        return found
    files = _files(Path(folder), run, found.notes)
    if not files:
        found.notes.append(f"No epoch file of this run was found in {folder} on this machine.")
    epochs = sorted(files)
    kept = [epochs[i] for i in thin(len(epochs), max(2, frames // max(1, layers)))]
    if len(kept) < len(epochs):
        found.notes.append(f"{len(kept)} of {len(epochs)} epochs are shown, evenly spread.")
    for epoch in kept:
        path, phase = files[epoch]
        label = f"epoch {epoch}" if phase == "train" else f"epoch {epoch} ({phase})"
        try:
            _read(path, label, found)
        except Exception as error:  # of numpy's and zipfile's parsers, which have no closed list
            found.notes.append(f"{path.name} could not be read and is left out ({_line(error)}).")
    return found


def _files(folder: Path, run: str, notes: list[str]) -> dict[int, tuple[Path, str]]:
    """Epoch → file and phase, of this run only."""
    files: dict[int, tuple[Path, str]] = {}
    for place in (folder, folder / path_name(run)):
        try:
            names = [path for path in place.iterdir() if _NAME.fullmatch(path.name)]
        except OSError:
            continue
        for path in sorted(names):
            try:
                with zipfile.ZipFile(path) as archive:
                    about = json.loads(archive.comment or b"null")
            except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RecursionError) as error:
                notes.append(f"{path.name} could not be read and is left out ({_line(error)}).")
                continue
            if isinstance(about, dict) and about.get("run") == run:
                epoch = about.get("epoch")
                match = _NAME.fullmatch(path.name)
                number = epoch if isinstance(epoch, int) else int(match[1]) if match else 0
                files.setdefault(number, (path, str(about.get("phase", "train"))))
    return files


def _read(path: Path, label: str, found: Epochs) -> None:
    """Add the gates of a file: all of them, or none where one cannot be read."""
    gates: dict[tuple[str, str], NDArray[np.float32]] = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            layer, _, gate = name.rpartition("/")
            if gate not in _SHOWN:
                continue
            array = archive[name]
            if array.ndim != 3 or array.dtype.kind != "f" or array.size == 0:
                raise ValueError(f"{name} is no array of (batch, time, units)")
            gates[clean_name(layer), gate] = batch_mean(array).astype(np.float32)
    for (layer, gate), values in gates.items():
        found.layers.setdefault(layer, {}).setdefault(label, {})[gate] = values


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
