"""Read the gates that the collector saved once per epoch, for the heatmaps."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.collector.cells import CELLS
from gatewatch.collector.names import PHASES, clean_name, path_name
from gatewatch.jobs.report.panels import batch_mean, thin
from gatewatch.jobs.text import join_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_SHOWN: Final = frozenset(gate for cell in CELLS for gate in cell.pictured)
_NAME: Final = re.compile(r"gate_epoch_(\d+)\.npz")


@dataclass
class Epochs:
    """Hold what a run's epoch files contain.

    Attributes:
        layers: (phase, layer) → label of the epoch → gate → (time, units), the mean over the batch, NaN where masked.
        notes: one line for each thing that was missing or could not be read.
    """

    layers: dict[tuple[str, str], dict[str, dict[str, NDArray[np.float32]]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_epochs(folders: Sequence[str], run: str, *, frames: int, layers: int) -> Epochs:
    """Read `gate_epoch_<n>.npz` of a run from its folders, the run's own inside them, and those of its phases.

    Files of other runs are skipped; files that cannot be read are named in the notes. Nothing is raised.

    Args:
        folders: each `log_dir` of the run.
        run: the name of the run, which is in the comment of each zip file.
        frames: how many epochs of all layers together to read; evenly spread where there are more.
        layers: how many layers will be shown, which share those frames.
    """
    epochs = Epochs()
    if not folders:
        epochs.notes.append(
            "There are no epoch files, since the run has log_dir=None: the heatmaps are drawn from its points."
        )
        return epochs
    files: dict[str, dict[int, Path]] = {}
    for folder in folders:
        _find(Path(folder), run, files, epochs.notes)
    if not files:
        epochs.notes.append(
            f"There is no epoch file of this run in {join_words(list(folders))} on this machine. Keras's fit writes "
            "one at the end of each epoch; a loop of your own does so when it calls end_epoch()."
        )
    for phase, by_epoch in files.items():
        numbers = sorted(by_epoch)
        kept = [numbers[i] for i in thin(len(numbers), max(2, frames // max(1, layers * len(files))))]
        if len(kept) < len(numbers):
            of_phase = f" of {phase}" if len(files) > 1 else ""
            epochs.notes.append(f"{len(kept)} of {len(numbers)} epochs{of_phase} are shown, evenly spread.")
        for epoch in kept:
            try:
                _read(by_epoch[epoch], phase, f"epoch {epoch}", epochs)
            except Exception as error:  # of numpy's and zipfile's parsers, which have no closed list
                epochs.notes.append(f"{by_epoch[epoch].name} could not be read and is left out ({_line(error)}).")
    return epochs


def _find(folder: Path, run: str, files: dict[str, dict[int, Path]], notes: list[str]) -> None:
    """Add phase → epoch → file, of this run only."""
    for shelf in (folder, folder / path_name(run)):
        for place in (shelf, *(shelf / phase for phase in PHASES)):
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
                    files.setdefault(str(about.get("phase", "train")), {}).setdefault(number, path)


def _read(path: Path, phase: str, label: str, epochs: Epochs) -> None:
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
        epochs.layers.setdefault((phase, layer), {}).setdefault(label, {})[gate] = values


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
