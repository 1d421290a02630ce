"""AnomalyDetector: an isolation forest over samples of activations and gradients."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import numpy as np
from sklearn.ensemble import IsolationForest

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import replace_file
from gatewatch.collector.text import one_line
from gatewatch.jobs import model_files
from gatewatch.jobs.isolation_trees import IsolationTrees
from gatewatch.jobs.normal_range import NormalRange
from gatewatch.jobs.sample_features import FEATURES, Sample, observe, rounding
from gatewatch.jobs.scoring.captures import Array
from gatewatch.jobs.scoring.detectors.rules import CERTAIN

TREES: Final = 100
FEWEST: Final = 2
_LARGEST_SPLIT: Final = 1e30
"""Features beyond this count as this to the forest, which compares in single precision."""


class AnomalyDetector:
    """Learns normal behaviour from samples, and scores how anomalous others are.

    A sample is a mapping with `activations`, an array of shape (…, time, units), and optionally `gradients`, one array
    or several of any shapes. Activations of shape (units,) are accepted too. An array instead of a mapping is taken as
    activations. Arrays may also be lists, or tensors of any framework.

    Two things are compared with the normal samples. The forest tells unusual combinations of features. Each feature by
    itself may lie outside the range of the normal samples by as much as that range is wide, and by 0.1 % of its scale
    (`normal_range.STILL`) where it was constant. The score is the larger of both.

    Values that are not finite are a fault: a sample with any scores at least 2, as in `gatewatch jobs`. Steps in time
    at which all units are NaN are left out instead, as masked ones, as far as the normal samples had such steps.

    The detector compares levels, which suits a network that does not learn: a policy in a backtest, or copies of one.
    The levels of a network that learns change anyway, so `gatewatch jobs` scores how far each gate is from its forecast
    instead (docs/decisions/0003).

    Example:
        detector = AnomalyDetector().train({"activations": values} for values in healthy)
        detector.predict({"activations": new})  # True where it is anomalous

    Args:
        contamination: the share of the normal samples that scores above 1; above 0 and at most 0.5.

    Raises:
        ValueError: contamination is no number above 0 and at most 0.5.
    """

    def __init__(self, contamination: float = 0.05) -> None:
        if not isinstance(contamination, Real) or not 0 < contamination <= 0.5:
            raise ValueError(f"contamination={contamination!r}: must be above 0 and at most 0.5")
        self.contamination: float = float(contamination)
        self.provenance: dict[str, Any] = {}
        self._learned: _Learned | None = None

    def extract_features(self, sample: Sample) -> dict[str, float]:
        """Return the features of a sample: name → value, for each name in `FEATURES`.

        Mean, standard deviation, entropy, zero crossings and saturation are those of `gate_stats` on the scale of tanh
        (see `collector/schema`), the last three of activations rounded to four decimals. Values that are not finite are
        left out; a missing gradient counts as 0, and what is beyond 1e100 as that.

        Raises:
            ValueError: the sample has no activations, or none that is finite.
            TypeError: its activations or gradients are no numbers.
        """
        return dict(zip(FEATURES, observe(sample).row.tolist(), strict=True))

    def train(self, normal_samples: Iterable[Sample]) -> Self:
        """Learn from normal samples, and return the detector. Deterministic: the same samples give the same scores.

        Raises:
            ValueError: there are fewer than two samples, or one has no features.
        """
        observed = [observe(sample) for sample in normal_samples]
        if len(observed) < FEWEST:
            raise ValueError(f"{len(observed)} normal samples: at least {FEWEST} are needed, and a hundred are better")
        rows = np.stack([each.row for each in observed])
        normal = NormalRange.of(rows, rounding(rows))
        forest = IsolationForest(n_estimators=TREES, contamination=self.contamination, random_state=0)
        forest.fit(_to_split(rows, normal))
        masked = NormalRange.of(np.array([[each.masked] for each in observed]), np.zeros(1))
        most_masked = min(1.0, float((masked.high + masked.margin)[0]))
        self._learned = _Learned(IsolationTrees.of(forest), float(forest.offset_), normal, most_masked)
        self.provenance = {
            "features": list(FEATURES),
            "samples": len(rows),
            "contamination": self.contamination,
            "versions": {name: metadata.version(name) for name in ("scikit-learn", "numpy")},
        }
        return self

    def score(self, sample: Sample) -> float:
        """Return how anomalous a sample is: 0 to 1 is normal, above 1 anomalous.

        It is the larger of `score_samples / offset_` of the forest and the distance from the range of the normal
        samples (`NormalRange.score`). A sample with values that are not finite scores at least 2, and 2 where none is
        finite; no value makes it raise.

        Raises:
            ValueError: it was not trained, or the sample has no activations, or an empty array of them.
            TypeError: its activations or gradients are no numbers.
        """
        learned = self._trained()
        observed = observe(sample, required=False)
        faulty = observed.not_finite or observed.masked > learned.most_masked
        if not observed.row.size:
            return CERTAIN
        forest = learned.trees.score_samples(_to_split(observed.row[None], learned.normal))[0] / learned.offset
        return max(float(forest), learned.normal.score(observed.row), CERTAIN if faulty else 0.0)

    def predict(self, sample: Sample) -> bool:
        """Return whether a sample is anomalous: its score is above 1.

        Raises:
            ValueError, TypeError: as `score`.
        """
        return self.score(sample) > 1

    def save(self, path: str | PathLike[str]) -> None:
        """Write the detector to a skops file, which contains no code.

        Raises:
            ValueError: it was not trained.
            OSError: the file cannot be written.
        """
        learned = self._trained()
        content = {
            "trees": learned.trees.arrays,
            "offset": learned.offset,
            "low": learned.normal.low,
            "high": learned.normal.high,
            "floor": learned.normal.floor,
            "most_masked": learned.most_masked,
            "provenance": self.provenance,
        }
        with replace_file(Path(path)) as file:
            model_files.dump(content, file)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a detector from a file that `save` wrote. What it holds is checked: a file may be damaged, or crafted.

        Raises:
            ConfigError: the file is missing or damaged, larger than 64 MiB, or holds something else or a detector of
                another version.
        """
        try:
            learned, provenance = _read(model_files.load(Path(path)))
            detector = cls(provenance["contamination"])
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or one_line(error, 300)
            raise ConfigError(f"{Path(path)}: the detector cannot be read: {reason}; train and save it again") from None
        detector._learned, detector.provenance = learned, provenance
        return detector

    def _trained(self) -> _Learned:
        if self._learned is None:
            raise ValueError("the detector must be trained before prediction; call train(normal_samples)")
        return self._learned


class _Learned(NamedTuple):
    """What a detector has learned.

    Attributes:
        trees: of the forest.
        offset: of its scores.
        normal: the range of the features.
        most_masked: the largest share of steps at which all units may be NaN.
    """

    trees: IsolationTrees
    offset: float
    normal: NormalRange
    most_masked: float


def _to_split(rows: Array, normal: NormalRange) -> Array:
    """Return the (n, F) rows that the forest is given, in which what does not vary by more than rounding is 0."""
    return np.where(normal.varies, np.clip(rows, -_LARGEST_SPLIT, _LARGEST_SPLIT), 0.0)


def _read(content: Any) -> tuple[_Learned, dict[str, Any]]:
    """Return what a file holds, and its provenance.

    Raises:
        ValueError: it is no detector of this version, or a damaged one.
    """
    match content:
        case {
            "trees": trees,
            "offset": float(offset),
            "low": np.ndarray() as low,
            "high": np.ndarray() as high,
            "floor": np.ndarray() as floor,
            "most_masked": float(most_masked),
            "provenance": {"features": features, "samples": int(samples), "contamination": _} as provenance,
        } if features == list(FEATURES):
            pass
        case _:
            raise ValueError("it holds no detector of this version")
    if any(each.dtype != np.float64 or each.shape != (len(FEATURES),) for each in (low, high, floor)):
        raise ValueError("the range of the features is none")
    if not (np.isfinite([low, high, floor]).all() and (low <= high).all() and (floor > 0).all()):
        raise ValueError("the range of a feature is none")
    if not (-1 <= offset < 0 and 0 <= most_masked <= 1 and FEWEST <= samples < 2**63):
        raise ValueError("the offset of its scores, or how much is masked, or the number of samples is none")
    normal = NormalRange(low, high, floor, samples)
    return _Learned(IsolationTrees.from_arrays(trees, len(FEATURES)), offset, normal, most_masked), provenance
