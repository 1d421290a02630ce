"""Checkpoints: how far each run was scored, and the scoring state then. A cache of the jobs, and nothing more.

A checkpoint that cannot be read, is of another version, or does not fit the store is ignored, and the run is scored
from its beginning, with the same result. What a checkpoint holds is checked before it is used: a damaged or crafted one
must not stop the jobs.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from gatewatch.collector.files import replace_file
from gatewatch.collector.log import log
from gatewatch.collector.names import path_name
from gatewatch.collector.text import one_line
from gatewatch.jobs import model_files
from gatewatch.jobs.array_files import read_arrays
from gatewatch.jobs.scoring.captures import NEVER
from gatewatch.jobs.scoring.detectors import DETECTORS, Detector
from gatewatch.jobs.scoring.detectors.base import Model
from gatewatch.jobs.scoring.rolling_state import RollingState
from gatewatch.jobs.scoring.scoring_state import ScoringState
from gatewatch.jobs.scoring.signals import SignalKey

VERSION: Final = 16
"""To be raised whenever scores, or the format of checkpoints, change."""
MOST_BYTES: Final = 2**30
"""The largest checkpoint that is read, unpacked. A million signals take 0.8 GB."""
_NUMBERS: Final = ("points", "captures", "newest", "back", "redo", "first", "after", "reference")


@dataclass(slots=True)
class Checkpoint:
    """How far one run, phase and combination of the user's tags was scored.

    Attributes:
        points: of `gate_stats`, until then.
        captures: that were scored.
        newest: time of the newest capture that was scored, nanoseconds.
        back: time of the earliest capture that the next pass must read again.
        seen: points, and time of the newest, at the last pass, scored or not.
        redo: captures until this time already had scores when scoring began anew.
        first: time of the first capture that was scored.
        after: captures of the backtest that it continues.
        scoring: the scoring state.
        reference: fingerprint of the training that it is compared with; 0 for none.
    """

    points: int = 0
    captures: int = 0
    newest: int = NEVER
    back: int = NEVER
    seen: tuple[int, int] = (0, 0)
    redo: int = NEVER
    first: int = NEVER
    after: int = 0
    scoring: ScoringState = field(default_factory=ScoringState)
    reference: int = 0


def load(
    folder: Path, run: str, tags: Mapping[str, str], detectors: Sequence[type[Detector]] = DETECTORS
) -> Checkpoint | None:
    """Return the checkpoint of a run, phase and the user's tags, or None where there is no sound one.

    Args:
        folder: of all checkpoints.
        run, tags: of the series; the tags include run and phase.
        detectors: those that are to score; a checkpoint of others is ignored.
    """
    file = _file(folder, run, tags)
    scoring = ScoringState(detectors)
    try:
        with zipfile.ZipFile(file) as archive:
            stored = dict(read_arrays(archive, MOST_BYTES))
        about = json.loads(str(stored["about"]))
        if about["version"] != VERSION or about["tags"] != dict(tags):
            return None
        if [*about["detectors"]] != [detector.name for detector in scoring.detectors]:
            return None
        keys = tuple(SignalKey(*key) for key in about["keys"])
        arrays = {name: stored[f"rolling.{name}"] for name in scoring.rolling.arrays}
        scoring.rolling = RollingState(keys, about["count"], about["settled"], **arrays)
        scoring.rolling.check()
        for detector in scoring.detectors:
            model_id, names = about["detectors"][detector.name]
            detector.state = {name: stored[f"{detector.name}.{name}"] for name in names}
            detector.check_state(len(keys))
            if model_id is not None:
                detector.model = _load_model(file, detector, model_id)
        numbers, seen = {name: about[name] for name in _NUMBERS}, tuple(about["seen"])
        if len(seen) != 2 or any(
            type(number) is not int or not -(2**63) <= number < 2**63 for number in (*numbers.values(), *seen)
        ):
            raise ValueError("a position in it is no whole number")
        return Checkpoint(**numbers, seen=seen, scoring=scoring)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file raises many kinds of error
        reason = one_line(error) or type(error).__name__
        log.warning("gatewatch: checkpoint %s is ignored, the run is scored from its beginning: %s", file, reason)
        return None


def save(folder: Path, run: str, tags: Mapping[str, str], checkpoint: Checkpoint) -> None:
    """Store a checkpoint; log a warning where that is not possible."""
    file, scoring = _file(folder, run, tags), checkpoint.scoring
    about = {
        "version": VERSION,
        "run": run,
        "tags": dict(tags),
        **{name: getattr(checkpoint, name) for name in _NUMBERS},
        "seen": checkpoint.seen,
        "keys": scoring.rolling.keys,
        "count": scoring.rolling.count,
        "settled": scoring.rolling.settled,
        "detectors": {each.name: (getattr(each.model, "model_id", None), [*each.state]) for each in scoring.detectors},
    }
    states = {"rolling": scoring.rolling.arrays} | {each.name: each.state for each in scoring.detectors}
    arrays: dict[str, Any] = {f"{of}.{name}": values for of, state in states.items() for name, values in state.items()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for detector in scoring.detectors:
            if detector.model is not None:
                _save_model(file, detector, detector.model)
        with replace_file(file, mode=0o600) as stream:
            np.savez(stream, about=np.array(json.dumps(about)), **arrays)
    except OSError as error:
        log.warning("gatewatch: the checkpoint %s cannot be stored: %s", file, error.strerror or error)


def forget(folder: Path, run: str) -> None:
    """Remove the checkpoints of a run."""
    for file in _folder(folder, run).glob("*"):
        file.unlink(missing_ok=True)


def _folder(folder: Path, run: str) -> Path:
    return folder / "runs" / path_name(run)


def _file(folder: Path, run: str, tags: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(json.dumps(dict(tags), sort_keys=True).encode()).hexdigest()[:16]
    return _folder(folder, run) / f"{digest}.npz"


def _model_file(file: Path, detector: Detector) -> Path:
    return file.with_suffix(f".{detector.name}.skops")


def _save_model(file: Path, detector: Detector, model: Model) -> None:
    """Store the model of a detector beside its checkpoint, unless it is stored already."""
    try:
        _load_model(file, detector, model.model_id)
    except ValueError:
        with replace_file(_model_file(file, detector), mode=0o600) as stream:
            model_files.dump(model.content, stream)
        with suppress(ValueError):
            _load_model(file, detector, model.model_id)  # which caches it


def _load_model(checkpoint: Path, detector: Detector, model_id: str) -> Model:
    """Return the model of a detector that is stored beside its checkpoint.

    Raises:
        ValueError: there is none, it cannot be read, or it has another id.
    """
    file = _model_file(checkpoint, detector)
    try:
        status = file.stat()
    except OSError:
        raise ValueError(f"{file.name} is missing") from None
    model = _loaded(file, type(detector), status.st_mtime_ns, status.st_size)
    if model.model_id != model_id:
        raise ValueError(f"{file.name} holds {model.model_id}, not {model_id}")
    return model


@lru_cache(maxsize=512)
def _loaded(file: Path, detector: type[Detector], _modified: int, _size: int) -> Model:
    """Load a model from its file, once: that takes longer than a pass over its run."""
    try:
        return detector.read_model(model_files.load(file))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file.name} cannot be read: {error}") from None
