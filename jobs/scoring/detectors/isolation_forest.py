"""The isolation forest: trained on normal behaviour, it scores what differs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Final

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest

Array = NDArray[np.floating[Any]]

CONTAMINATION: Final = 0.05
"""The share of what was learned from that scores above 1."""
TREES: Final = 100
USUAL: Final = 2.0
"""Deviations below so many usual ones are all the same to the forest, and none is a cause."""
DILATION: Final = 8.0
"""A warm-up is the calm beginning of a run. So that an ordinary later stretch is no surprise, what is learned from it
is spread over up to this many times its deviations."""
_COPIES = 4
_FEWEST_ROWS = 16


class Forest:
    """An isolation forest (Liu, Ting and Zhou 2008) over deviations, `features.deviations`.

    Training is deterministic: the same rows give the same scores, bit for bit.

    Args:
        rows: (rows, features), deviations of normal behaviour; rows with NaN are left out.
        contamination: the share of them that scores above 1.
        about: where the rows come from; kept with it.

    Attributes:
        model_id: the same for the same rows, constants and version of scikit-learn.
        provenance: `about`, how many rows there were, and the versions of the libraries.

    Raises:
        ValueError: fewer than 16 rows are finite.
    """

    def __init__(
        self, rows: Array, contamination: float = CONTAMINATION, about: Mapping[str, Any] | None = None
    ) -> None:
        rows = np.abs(rows[np.isfinite(rows).all(axis=1)])
        if len(rows) < _FEWEST_ROWS:
            raise ValueError(f"{len(rows)} finite rows to learn from, at least {_FEWEST_ROWS} are needed")
        random = np.random.default_rng(0)
        copies = np.tile(rows, (_COPIES, 1))
        # A statistic that happened to stand still in the warm-up may move as much as is usual.
        copies = np.maximum(copies, np.abs(random.normal(size=copies.shape)))
        copies *= np.exp(random.uniform(0, np.log(DILATION), (len(copies), 1)))
        self._forest = IsolationForest(n_estimators=TREES, contamination=contamination, random_state=0)
        self._forest.fit(_compressed(copies))
        digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes())
        digest.update(f"{contamination} {TREES} {USUAL} {DILATION} {sklearn.__version__}".encode())
        self.model_id = f"isolation_forest-{digest.hexdigest()[:12]}"
        self.provenance = {**(about or {}), "rows": len(rows), "versions": _versions()}

    def score(self, rows: Array) -> Array:
        """`score_samples / offset_` of each row: 0 to 1 is normal, above 1 anomalous; NaN where a row has NaN."""
        scores = np.full(len(rows), np.nan)
        known = np.isfinite(rows).all(axis=1)
        if known.any():
            samples = self._forest.score_samples(_compressed(np.abs(rows[known])))
            scores[known] = samples / self._forest.offset_
        return scores


def _compressed(deviations: Array) -> Array:
    logarithms: Array = np.log(np.maximum(deviations, USUAL))
    return logarithms


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("scikit-learn", "numpy")}
