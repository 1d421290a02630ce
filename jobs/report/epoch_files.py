"""Read the gates that the collector saved once per epoch, for the heatmaps."""

from __future__ import annotations

import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.cells import CELLS
from gatewatch.collector.names import PHASES, clean_name, path_name
from gatewatch.collector.text import one_line
from gatewatch.jobs.array_files import read_arrays
from gatewatch.jobs.report.heatmap_data import batch_mean, thin
from gatewatch.jobs.text import join_words

_SHOWN: Final = frozenset(gate for cell in CELLS for gate in cell.pictured)
_NAME: Final = re.compile(r"gate_epoch_(\d+)\.npz")
MOST_BYTES: Final = 2**32
"""The gates of a file that are shown may unpack to this: 256 gates of 32 sequences, 256 steps and 512 units."""
MOST_BYTES_OF_GATE: Final = 2**28
"""One gate may unpack to this: 32 sequences of 1,000 steps and 2,000 units, in single precision."""


Gates = dict[str, NDArray[np.float32]]
"""Gate → (time, units): the mean over the batch, NaN where masked."""


def read_epochs(
    folders: Sequence[str], run: str, *, frames: int, layers: int
) -> tuple[dict[tuple[str, str], dict[str, Gates]], list[str]]:
    """Read `gate_epoch_<n>.npz` of a run from its folders, the run's own inside them, and those of its phases.

    Files of other runs are skipped; files that cannot be read are named in the notes. Nothing is raised.

    Args:
        folders: each `log_dir` of the run.
        run: the name of the run, which is in the comment of each zip file.
        frames: how many epochs of all layers together to read; evenly spread where there are more.
        layers: how many layers will be shown, which share those frames.

    Returns:
        (phase, layer) → label of the epoch → its gates; and a line for each thing that is missing or unreadable.
    """
    if not folders:
        return {}, ["There are no epoch files, since the run has log_dir=None: the heatmaps are drawn from its points."]
    saved: dict[tuple[str, str], dict[str, Gates]] = {}
    by_phase, notes = _find(folders, run)
    if not by_phase:
        notes.append(
            f"There is no epoch file of this run in {join_words(folders)} on this machine. Keras's fit writes "
            "one at the end of each epoch; a loop of your own does so when it calls end_epoch()."
        )
    for phase, by_epoch in by_phase.items():
        numbers = sorted(by_epoch)
        kept = [numbers[i] for i in thin(len(numbers), max(2, frames // max(1, layers * len(by_phase))))]
        if len(kept) < len(numbers):
            of_phase = f" of {phase}" if len(by_phase) > 1 else ""
            notes.append(f"{len(kept)} of {len(numbers)} epochs{of_phase} are shown, evenly spread.")
        for epoch in kept:
            try:
                for layer, gates in _read(by_epoch[epoch]).items():
                    saved.setdefault((phase, layer), {})[f"epoch {epoch}"] = gates
            except Exception as error:  # of numpy's and zipfile's parsers, which have no closed list
                notes.append(_unreadable(by_epoch[epoch], error))
    return saved, notes


def _find(folders: Sequence[str], run: str) -> tuple[dict[str, dict[int, Path]], list[str]]:
    """Return phase → epoch → file, of this run only; and a note for each file that cannot be read."""
    by_phase, notes = defaultdict[str, dict[int, Path]](dict), list[str]()
    shelves = [shelf for folder in map(Path, folders) for shelf in (folder, folder / path_name(run))]
    for place in [shelf / phase for shelf in shelves for phase in ("", *PHASES)]:
        try:
            paths = sorted(place.iterdir())
        except (OSError, ValueError):  # also of a name that no folder can have
            continue
        for path, match in [(path, match) for path in paths if (match := _NAME.fullmatch(path.name))]:
            try:
                if not path.is_file():  # reading a pipe would wait
                    raise ValueError("it is no file")
                with zipfile.ZipFile(path) as archive:
                    about = json.loads(archive.comment or b"null")
            except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RecursionError) as error:
                notes.append(_unreadable(path, error))
                continue
            if isinstance(about, dict) and about.get("run") == run:
                by_phase[str(about.get("phase", "train"))].setdefault(int(match[1]), path)
    return by_phase, notes


def _read(path: Path) -> dict[str, Gates]:
    """Return layer → gates of a file; raise where one cannot be read."""
    layers: dict[str, Gates] = defaultdict(dict)
    with zipfile.ZipFile(path) as archive:
        for name, array in read_arrays(archive, MOST_BYTES, MOST_BYTES_OF_GATE, wanted=_is_shown):
            layer, _, gate = name.rpartition("/")
            if array.ndim != 3 or array.dtype.kind != "f" or array.size == 0:
                raise ValueError(f"{name} is no array of (batch, time, units)")
            with np.errstate(over="ignore"):  # an activation may be beyond single precision
                layers[clean_name(layer)][gate] = batch_mean(array).astype(np.float32)
    return layers


def _is_shown(name: str) -> bool:
    return name.rpartition("/")[2] in _SHOWN


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path.name} could not be read and is left out ({one_line(error) or type(error).__name__})."
