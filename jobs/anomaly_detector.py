"""AnomalyDetector: an isolation forest over samples of activations and gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from importlib import metadata
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from sklearn.ensemble import IsolationForest

from gatewatch.collector.arrays import iter_arrays
from gatewatch.collector.cells import GATES
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.statistics import gate_statistics
from gatewatch.jobs.scoring.captures import Array
from gatewatch.jobs.skops_io import skops_io

Sample = Mapping[str, Any] | Array

FEATURES: Final = (
    "mean_activation",
    "std_activation",
    "entropy",
    "zero_crossing_rate",
    "saturation",
    "mean_gradient",
    "var_gradient",
)
TREES: Final = 100
FEWEST: Final = 2
_TRUSTED: Final = ["sklearn.tree._tree.Tree"]


class AnomalyDetector:
    """Learns normal behaviour from samples, and scores how anomalous others are.

    A sample is a mapping with `activations`, an array of shape (…, time, units), and optionally `gradients`, one array
    or several of any shapes. Activations of shape (units,) are accepted too. An array instead of a mapping is taken as
    activations. Arrays may also be lists, or tensors of any framework.

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
        self._forest: IsolationForest | None = None

    def extract_features(self, sample: Sample) -> dict[str, float]:
        """Return the features of a sample: name → value, for each name in `FEATURES`.

        Mean, standard deviation, entropy, zero crossings and saturation are those of `gate_stats` on the scale of tanh
        (see `collector/schema`). Values that are not finite are left out; a missing gradient counts as 0.

        Raises:
            ValueError: the sample has no activations, or none that is finite.
            TypeError: its activations or gradients are no numbers.
        """
        given = sample if isinstance(sample, Mapping) else {"activations": sample}
        if "activations" not in given:
            raise ValueError(
                f"a sample must have 'activations'; this one has {', '.join(map(str, given)) or 'nothing'}"
            )
        statistics = gate_statistics(_by_time(given["activations"]), GATES["hidden"].scale)
        if "mean" not in statistics:
            raise ValueError("the sample's activations hold no finite value")
        parts = [np.ravel(part) for _, part in iter_arrays(given.get("gradients"), "gradients")]
        gradient = np.concatenate([np.empty(0), *parts])
        gradient = gradient[np.isfinite(gradient)]
        values = (
            *(statistics[name] for name in ("mean", "std", "entropy", "zero_crossing_rate")),
            statistics["saturated_low"] + statistics["saturated_high"],
            gradient.mean() if gradient.size else 0.0,
            gradient.var() if gradient.size else 0.0,
        )
        return dict(zip(FEATURES, map(float, values), strict=True))

    def train(self, normal_samples: Iterable[Sample]) -> Self:
        """Learn from normal samples, and return the detector. Deterministic: the same samples give the same scores.

        Raises:
            ValueError: there are fewer than two samples, or one has no features.
        """
        rows = np.array([self._row(sample) for sample in normal_samples])
        if len(rows) < FEWEST:
            raise ValueError(f"{len(rows)} normal samples: at least {FEWEST} are needed, and a hundred are better")
        forest = IsolationForest(n_estimators=TREES, contamination=self.contamination, random_state=0)
        self._forest = forest.fit(rows)
        self.provenance = {
            "features": list(FEATURES),
            "samples": len(rows),
            "contamination": self.contamination,
            "versions": {name: metadata.version(name) for name in ("scikit-learn", "numpy")},
        }
        return self

    def score(self, sample: Sample) -> float:
        """Return `score_samples / offset_` of the forest: 0 to 1 is normal, above 1 anomalous.

        Raises:
            ValueError: it was not trained, or the sample has no features.
        """
        forest = self._trained()
        return float(forest.score_samples([self._row(sample)])[0] / forest.offset_)

    def predict(self, sample: Sample) -> bool:
        """Return whether a sample is anomalous: its score is above 1.

        Raises:
            ValueError: it was not trained, or the sample has no features.
        """
        return self.score(sample) > 1

    def save(self, path: str | PathLike[str]) -> None:
        """Write the detector to a skops file, which contains no code.

        Raises:
            ValueError: it was not trained.
            OSError: the file cannot be written.
        """
        skops_io().dump({"forest": self._trained(), "provenance": self.provenance}, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a detector from a file that `save` wrote.

        Raises:
            ConfigError: the file is missing or damaged, or holds something else or a detector with other features.
        """
        try:
            stored = skops_io().load(path, trusted=_TRUSTED)
        except Exception as error:  # whatever is wrong with a file, skops raises many kinds of error
            reason = error.strerror if isinstance(error, OSError) else "it is damaged, or no file of skops"
            raise ConfigError(f"{Path(path)}: the detector cannot be read: {reason}; train it again") from None
        match stored:
            case {"forest": IsolationForest() as forest, "provenance": {"features": features} as provenance}:
                pass
            case _:
                raise ConfigError(f"{Path(path)}: holds no detector; save one with AnomalyDetector.save")
        if features != list(FEATURES):
            raise ConfigError(f"{Path(path)}: is of another version of Gatewatch, with other features; train it again")
        detector = cls(provenance["contamination"])
        detector.provenance, detector._forest = provenance, forest
        return detector

    def _row(self, sample: Sample) -> list[float]:
        return list(self.extract_features(sample).values())

    def _trained(self) -> IsolationForest:
        if self._forest is None:
            raise ValueError("the detector must be trained before prediction; call train(normal_samples)")
        return self._forest


def _by_time(activations: Any) -> Array:
    """Return activations as one array, (batch, time, units)."""
    parts = [part for _, part in iter_arrays(activations, "activations")]
    if len({part.shape for part in parts}) > 1:
        raise ValueError("activations must be one array; those of several layers are several samples")
    values = np.atleast_2d(np.stack(parts) if parts else np.empty(0))
    return values.reshape(math.prod(values.shape[:-2]), *values.shape[-2:])
