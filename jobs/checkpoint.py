"""What the jobs would rather not compute again: how far a run was looked at, and what was known then.

A cache and nothing more. What cannot be read, is of another version, or does not fit what the store holds is left
aside, and the run is scored from its beginning, with the same result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from gatewatch.collector.schema import path_name
from gatewatch.jobs.scoring.detectors.isolation_forest import Forest
from gatewatch.jobs.scoring.residuals import Deviations, Memory
from gatewatch.jobs.scoring.scoring_state import Watch
from gatewatch.jobs.scoring.series_groups import NEVER
from gatewatch.jobs.scoring.signals import Channel

VERSION: Final = 1
"""Raised whenever what is scored changes."""
_TRUSTED: Final = ["sklearn.tree._tree.Tree", "gatewatch.jobs.scoring.detectors.isolation_forest.Forest"]
_NUMBERS: Final = ("points", "captures", "newest", "back", "redo", "first", "after")
_ARRAYS: Final = tuple(one.name for one in fields(Memory) if one.name not in ("names", "count"))

log = logging.getLogger("gatewatch")


@dataclass(slots=True)
class Checkpoint:
    """How far one run, phase and combination of the user's tags was looked at.

    Attributes:
        points: of `gate_stats`, up to there.
        captures: that were taken.
        newest: time of the newest capture that was taken, nanoseconds.
        back: time of the earliest capture that the next look needs once more.
        seen: points and time of the newest at the last look, taken or not.
        redo: until this time there were scores already when this beginning was made.
        first: time of the first capture that was taken.
        after: captures of the backtest that it goes on from.
        watch: what is known.
    """

    points: int = 0
    captures: int = 0
    newest: int = NEVER
    back: int = NEVER
    seen: tuple[int, int] = (0, 0)
    redo: int = NEVER
    first: int = NEVER
    after: int = 0
    watch: Watch = field(default_factory=Watch)


def load(folder: Path, run: str, tags: Mapping[str, str]) -> Checkpoint | None:
    """The checkpoint of a run, phase and the user's tags, where there is a sound one."""
    file = _file(folder, run, tags)
    try:
        with np.load(file, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            if about["version"] != VERSION or about["tags"] != dict(tags):
                return None
            memory = Memory(
                tuple(Channel(*name) for name in about["names"]),
                about["count"],
                **{name: stored[f"memory_{name}"] for name in _ARRAYS},
            )
            newest = [stored[f"newest_{name}"] for name in Deviations._fields if f"newest_{name}" in stored]
            watch = Watch(
                memory,
                [stored["learned"]] if "learned" in stored else [],
                _forest(file.with_suffix(".skops"), about["model"]) if about["model"] else None,
                Deviations(*newest) if newest else None,
            )
            numbers = {name: int(about[name]) for name in _NUMBERS}
            return Checkpoint(**numbers, seen=(int(about["seen"][0]), int(about["seen"][1])), watch=watch)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever is wrong with a file, many kinds of error are raised
        log.warning("gatewatch: %s is left aside, the run is scored from its beginning: %s", file, error)
        return None


def save(folder: Path, run: str, tags: Mapping[str, str], checkpoint: Checkpoint) -> None:
    """Keep a checkpoint; where that cannot be done, say so and go on."""
    file, watch = _file(folder, run, tags), checkpoint.watch
    about = {
        "version": VERSION,
        "run": run,
        "tags": dict(tags),
        **{name: getattr(checkpoint, name) for name in _NUMBERS},
        "seen": checkpoint.seen,
        "names": watch.memory.names,
        "count": watch.memory.count,
        "model": watch.forest.model_id if watch.forest else None,
    }
    arrays: dict[str, Any] = {f"memory_{name}": getattr(watch.memory, name) for name in _ARRAYS}
    if watch.newest is not None:
        arrays |= {f"newest_{name}": values for name, values in zip(Deviations._fields, watch.newest, strict=True)}
    if watch.learned:
        arrays["learned"] = np.concatenate(watch.learned)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if watch.forest is not None:
            _save_forest(file.with_suffix(".skops"), watch.forest)
        with _replacing(file) as temporary:
            np.savez(temporary, about=np.array(json.dumps(about)), **arrays)
    except OSError as error:
        log.warning("gatewatch: the checkpoint %s cannot be kept: %s", file, error.strerror or error)


def forget(folder: Path, run: str) -> None:
    """Remove what is kept of a run."""
    for file in _folder(folder, run).glob("*"):
        file.unlink(missing_ok=True)


def _folder(folder: Path, run: str) -> Path:
    return folder / "runs" / path_name(run)


def _file(folder: Path, run: str, tags: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(json.dumps(dict(tags), sort_keys=True).encode()).hexdigest()[:16]
    return _folder(folder, run) / f"{digest}.npz"


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """A file beside another, which it replaces at the end: who reads finds the old one or the new one."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, suffix=file.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _save_forest(file: Path, forest: Forest) -> None:
    """Keep a forest with its provenance, unless it is there already."""
    with suppress(ValueError):
        _forest(file, forest.model_id)
        return
    import skops.io  # noqa: PLC0415 - it loads torch, where that is installed

    with _replacing(file) as temporary:
        skops.io.dump(forest, temporary, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    with suppress(ValueError):
        _forest(file, forest.model_id)  # which remembers it


def _forest(file: Path, model_id: str) -> Forest:
    known = _known(file)
    if known is None:
        raise ValueError(f"{file.name} is missing")
    forest = _loaded(str(file), *known)
    if forest.model_id != model_id:
        raise ValueError(f"{file.name} holds {forest.model_id}, not {model_id}")
    return forest


def _known(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=512)
def _loaded(file: str, _modified: int, _size: int) -> Forest:
    """A forest from its file, once: reading one takes longer than a pass over its run."""
    import skops.io  # noqa: PLC0415 - as above

    try:
        found = skops.io.load(file, trusted=_TRUSTED)
    except Exception as error:  # whatever is wrong with a file, skops raises many kinds of error
        raise ValueError(f"{Path(file).name} cannot be read: {error}") from None
    if not isinstance(found, Forest):
        raise ValueError(f"{Path(file).name} holds no forest")
    return found
