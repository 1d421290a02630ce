"""The training that a backtest or a live phase is compared with: how large each feature was, and what it looked like.

A phase names that run by `reference=`; where it names none it is compared with the training of its own run, if it has
one. It is read from the store at each pass, so a phase is compared with what the training has recorded by then.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from gatewatch.collector.log import log
from gatewatch.collector.names import MARKET_PHASES
from gatewatch.collector.schema import FEED_FEATURES, FEED_STATS, RUNS
from gatewatch.collector.text import safe_repr
from gatewatch.jobs.frames import times
from gatewatch.jobs.scoring.capture_tables import Array, by_field, by_tag, numbered
from gatewatch.jobs.scoring.captures import feature_names
from gatewatch.jobs.scoring.feature_profile import profile_of

if TYPE_CHECKING:
    import pandas as pd

    from gatewatch.collector.store import Store

__all__ = ["FEWEST", "References", "feature_looks", "feature_sizes", "fingerprint"]

FEWEST: Final = 4
"""Captures of a training with the size of a feature from which it says how large that is."""
_STATISTICS: Final = ("mean", "std", "p01", "p99", "lag1")
_SHAPE: Final = ("sequences", "positions")
_OF_GROUP: Final = ("run", "phase", "statistic")
_MOST_KEPT: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """How large the features of a training were, and what they looked like.

    Attributes:
        sizes: what `feature_sizes` and `feature_looks` return.
        names: of the features, as far as the user gave them.
    """

    sizes: Mapping[str, Array]
    names: Sequence[str]

    def of_features(self, names: Sequence[str]) -> Mapping[str, Array]:
        """Return the sizes in the order of another phase's features: by their names, or as they are without names."""
        if not names or not self.names:
            return self.sizes
        at = {name: index for index, name in enumerate(self.names)}
        columns = np.array([at.get(name, -1) for name in names])
        return {
            key: np.where(
                (columns >= 0) & (columns < len(values)), values[np.minimum(columns, len(values) - 1)], np.nan
            )
            for key, values in self.sizes.items()
        }


_kept: dict[tuple[str, str, str], Reference | None] = {}
"""What was read of trainings, by the number and time of their points: a live phase asks again in each pass."""


class References:
    """The trainings of a store that phases are compared with; each is read once.

    Args:
        store: where they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[tuple[str, str], Reference | None] = {}

    def sizes(self, tags: Mapping[str, str], names: Sequence[str]) -> Mapping[str, Array]:
        """Return `feature_sizes` and `feature_looks` of the training that a phase is compared with, or nothing.

        A run that is named but has no feed of a training in this store is said once.

        Args:
            tags: run, phase and the user's own.
            names: of the phase's features, as far as the user gave them.
        """
        run, phase = tags.get("run", ""), tags.get("phase", "")
        if phase not in MARKET_PHASES:
            return {}
        named = self._named(run, phase)
        own = {key: value for key, value in tags.items() if key not in _OF_GROUP}
        key = (named or run, repr(sorted(own.items())))
        if key not in self._read:
            self._read[key] = self._of(named or run, own)
        if named is not None and self._read[key] is None:
            _warn_once(
                f"the {phase} of {safe_repr(run)} is compared with no training: {safe_repr(named)} has no feed of one "
                f"in {self._store.url}; reference= must name a run of this store whose training recorded its feed"
            )
        reference = self._read[key]
        return {} if reference is None else reference.of_features(names)

    def _named(self, run: str, phase: str) -> str | None:
        """Return the run that a phase named when it last began."""
        frame = self._store.find(RUNS, run=run, tags={"phase": phase}, fields=["config"], prefix_tags=True)
        for config in reversed(_texts(frame, "config")):
            try:
                named = json.loads(config)["reference"]
            except (ValueError, RecursionError, TypeError, KeyError):
                continue
            return named if isinstance(named, str) and named else None
        return None

    def _of(self, run: str, own: Mapping[str, str]) -> Reference | None:
        """Read the training of a run: what has the same tags of the user's, or all of it where nothing has."""
        series = [each for each in self._store.series(FEED_FEATURES, "step", run) if each.tags.get("phase") == "train"]
        key = (
            self._store.url,
            run,
            repr((sorted(own.items()), [(sorted(tags.items()), *more) for tags, *more in series])),
        )
        if key not in _kept:
            if len(_kept) >= _MOST_KEPT:
                _kept.clear()
            _kept[key] = self._read_training(run, own, [each.tags for each in series])
        return _kept[key]

    def _read_training(
        self, run: str, own: Mapping[str, str], trained: Sequence[Mapping[str, str]]
    ) -> Reference | None:
        alike = [tags for tags in trained if all(tags.get(name, value) == value for name, value in own.items())]
        groups = {
            tuple(sorted((name, value) for name, value in tags.items() if name not in _OF_GROUP))
            for tags in alike or trained
        }
        every = [table for group in sorted(groups) for table in self._tables_of(run, dict(group))]
        if len({table["mean"].shape[1] for table in every}) != 1:
            return None
        joined = {name: np.concatenate([table[name] for table in every]) for name in (*_STATISTICS, *_SHAPE)}
        mean, std, p01, p99, lag1 = (joined[name] for name in _STATISTICS)
        sizes = {
            **feature_sizes(mean, std, p01, p99),
            **feature_looks(mean, std, lag1, joined["sequences"], joined["positions"]),
        }
        configs = _texts(self._store.find(RUNS, run=run, tags={"phase": "train"}, fields=["config"]), "config")
        return Reference(sizes, feature_names(configs[-1]) if configs else ())

    def _tables_of(self, run: str, own: Mapping[str, str]) -> list[dict[str, Array]]:
        """Return what was recorded of the feed with some tags: statistic → (captures, F), shape → (captures,)."""
        frame, stats = (
            self._store.find(name, run=run, tags={**own, "phase": "train"}, prefix_tags=True)
            for name in (FEED_FEATURES, FEED_STATS)
        )
        time = np.unique(times(frame))
        tables = by_tag(frame, time, "statistic", numbered(frame, "f"))
        if not tables.keys() >= {"mean", "std", "p01", "p99"}:
            return []
        none, shape = np.full(tables["mean"].shape, np.nan), by_field(stats, time, _SHAPE)
        lengths = {name: shape.get(name, np.full(len(time), np.nan)) for name in _SHAPE}
        return [{name: tables.get(name, none) for name in _STATISTICS} | lengths]


def feature_sizes(mean: Array, std: Array, p01: Array, p99: Array) -> Mapping[str, Array]:
    """Return how large each feature was in the captures of a training: `largest` and `smallest`, (F,) each.

    `largest` is the largest root of the mean square of a batch, `smallest` the smallest that the outer one of its
    percentiles 1 and 99 ever was. Both are rounded outwards to a quarter of an octave, so that they stay the same while
    a training of one scale goes on. NaN where fewer than `FEWEST` captures have the feature.

    Args:
        mean, std, p01, p99: (captures, F).
    """
    size, outer = np.hypot(mean, std), np.fmax(np.abs(p01), np.abs(p99))
    enough = np.isfinite(size).sum(axis=0) >= FEWEST
    return {
        "largest": np.where(enough, _rounded(np.fmax.reduce(size), np.ceil), np.nan),
        "smallest": np.where(enough, _rounded(np.fmin.reduce(outer), np.floor), np.nan),
    }


def feature_looks(mean: Array, std: Array, lag1: Array, sequences: Array, positions: Array) -> Mapping[str, Array]:
    """Return what each feature of a training looked like: `mean`, `std`, `persistence` and `least_std`, (F,) each.

    The first three are those of `profile_of`, rounded to an eighth of the deviation, an eighth of an octave and 0.02;
    `least_std` is the smallest deviation of a batch, rounded down to a quarter of an octave. So they stay the same
    while a training of one kind goes on. NaN where fewer than `FEWEST` captures have the feature.

    Args:
        mean, std, lag1: (captures, F).
        sequences, positions: (captures,).
    """
    profile = profile_of(mean, std, lag1, sequences, positions)
    enough = np.isfinite(mean + std).sum(axis=0) >= FEWEST
    whole = _rounded(profile.std, np.rint, 8)
    grain = np.where(whole > 0, whole / 8, 1.0)
    looks = {
        "mean": np.rint(profile.mean / grain) * grain,
        "std": whole,
        "persistence": np.rint(profile.persistence * 50) / 50,
        "least_std": _rounded(np.fmin.reduce(std), np.floor),
    }
    return {name: np.where(enough, values, np.nan) for name, values in looks.items()}


def fingerprint(sizes: Mapping[str, Array]) -> int:
    """Return a number that differs where sizes differ; 0 where there are none."""
    return zlib.crc32(b"".join(np.asarray(sizes[key], dtype="<f8").tobytes() for key in sorted(sizes))) if sizes else 0


def _rounded(values: Array, towards: np.ufunc, parts: int = 4) -> Array:
    """Round to such parts of an octave."""
    positive = np.where(values > 0, values, 1.0)
    return np.where(values > 0, np.exp2(towards(parts * np.log2(positive)) / parts), values)


def _texts(frame: pd.DataFrame, column: str) -> list[str]:
    """Return the texts of a column, in order of time."""
    return [value for value in frame.get(column, ()) if isinstance(value, str)]


@cache
def _warn_once(line: str) -> None:
    log.warning("gatewatch: %s", line)
