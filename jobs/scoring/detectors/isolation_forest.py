"""The isolation forest: it learns normal residuals from the warm-up or from baselines, and scores what differs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any, Final, Self

import numpy as np

from gatewatch.jobs.isolation_trees import IsolationTrees
from gatewatch.jobs.scoring.captures import Array, Pair
from gatewatch.jobs.scoring.detectors.base import Batch, Detector, Scores
from gatewatch.jobs.scoring.signals import LEVEL_SIGNALS, SignalKey

FEATURES: Final = (*LEVEL_SIGNALS, "gradient_norm", "update_ratio")
"""The signals whose residuals make a row: a gate's level signals, and the largest gradient and update of its layer."""
_OF_UPDATES: Final = FEATURES[len(LEVEL_SIGNALS) :]
CONTAMINATION: Final = 0.05
"""The share of the training rows that scores above 1."""
TREES: Final = 100
RESIDUAL_FLOOR: Final = 2.0
"""Residuals below this are all the same to the forest, and are no cause of a score."""
DILATION: Final = 8.0
"""A warm-up is the calm beginning of a run. So that an ordinary later stretch is not anomalous, its residuals are
multiplied by random factors of up to this."""
_COPIES = 4
_FEWEST_ROWS = 16


class ForestDetector(Detector):
    """Scores each gate's residuals with a forest that is trained at the end of the warm-up.

    Attributes:
        model: None during the warm-up, and where the warm-up had too few rows to train on.
        state: `learned`, (rows, F), the rows of the warm-up so far; empty after it.
    """

    name = "isolation_forest"
    waits_for_learning = True
    model: Forest | None = None

    @classmethod
    def read_model(cls, content: Any) -> Forest:
        """Return the forest that a file holds."""
        return Forest.from_content(content)

    def check_state(self, signals: int) -> None:
        """Check that the rows of the warm-up are rows."""
        learned = self.state.get("learned", np.empty((0, len(FEATURES))))
        if set(self.state) - {"learned"} or learned.dtype != np.float64 or learned.shape[1:] != (len(FEATURES),):
            raise ValueError("the rows that the forest is to learn from are of another shape")

    def learn(self, batch: Batch) -> None:
        """Collect rows during the warm-up; at its end train on the baselines, or on these rows if there are none."""
        if not batch.unsettled and not self.state:
            return
        size = len(batch.residuals.z)
        residuals = batch.residuals.z[: batch.unsettled]
        rows = forest_rows(residuals, batch.keys, batch.captures.gates)
        # Capture by capture: the forest's random numbers depend on the order, which must not depend on the batches.
        by_capture = np.stack([*rows.values()], axis=1).reshape(-1, len(FEATURES))
        learned = np.concatenate([*self.state.values(), by_capture])
        self.state = {"learned": learned}
        if batch.unsettled < size:
            baselines, last = batch.normal_rows, batch.first + batch.unsettled - 1
            about = {
                "source": "warm-up" if baselines is None else "baselines",
                "features": list(FEATURES),
                "captures": batch.before + batch.unsettled,
                "tags": dict(batch.captures.tags),
            }
            if last >= 0:  # a live phase that begins where the warm-up of its backtest ended does not read that capture
                about["until"] = str(np.datetime64(int(batch.captures.time[last]), "ns"))
            with suppress(ValueError):
                self.model = Forest(learned if baselines is None else baselines, about=about)
            self.state = {}

    def score(self, batch: Batch) -> Scores:
        """Return the forest's scores of the gates; none where there is no forest."""
        if self.model is None:
            return Scores()
        rows = forest_rows(batch.residuals.z, batch.keys, batch.captures.gates)
        scores = self.model.score(np.concatenate([*rows.values()]))  # one call costs as much for 1 row as for 1,000
        return Scores(dict(zip(rows, np.split(scores, len(rows)), strict=True)), model_id=self.model.model_id)


class Forest:
    """An isolation forest (Liu, Ting and Zhou 2008) over residuals.

    Training is deterministic: the same rows give the same scores, bit for bit.

    Args:
        rows: (rows, features), residuals of normal behaviour; rows with NaN are left out.
        contamination: the share of them that scores above 1.
        about: where the rows come from; kept in `provenance`.

    Attributes:
        model_id: the same for the same rows, constants and version of scikit-learn.
        provenance: `about`, how many rows there were, and the versions of the libraries.

    Raises:
        ValueError: fewer than 16 rows are finite.
    """

    def __init__(
        self, rows: Array, contamination: float = CONTAMINATION, about: Mapping[str, Any] | None = None
    ) -> None:
        from sklearn.ensemble import IsolationForest  # noqa: PLC0415 - slow to import, and most commands need none

        rows = np.abs(rows[np.isfinite(rows).all(axis=1)])
        if len(rows) < _FEWEST_ROWS:
            raise ValueError(f"{len(rows)} finite rows to learn from, at least {_FEWEST_ROWS} are needed")
        random = np.random.default_rng(0)
        copies = np.tile(rows, (_COPIES, 1))
        # A statistic that happened to stand still in the warm-up may move as much as is usual.
        copies = np.maximum(copies, np.abs(random.normal(size=copies.shape)))
        copies *= np.exp(random.uniform(0, np.log(DILATION), (len(copies), 1)))
        forest = IsolationForest(n_estimators=TREES, contamination=contamination, random_state=0)
        forest.fit(_compressed(copies))
        self._trees, self._offset = IsolationTrees.of(forest), float(forest.offset_)
        versions = {name: metadata.version(name) for name in ("scikit-learn", "numpy")}
        digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes())
        digest.update(f"{contamination} {TREES} {RESIDUAL_FLOOR} {DILATION} {versions['scikit-learn']}".encode())
        self.model_id = f"isolation_forest-{digest.hexdigest()[:12]}"
        self.provenance = {**(about or {}), "rows": len(rows), "versions": versions}

    @classmethod
    def from_content(cls, content: Any) -> Self:
        """Return the forest whose `content` a file holds.

        Raises:
            ValueError: it is none, or damaged.
        """
        forest = cls.__new__(cls)
        match content:
            case {"trees": trees, "offset": float(offset), "model_id": str(model_id), "provenance": dict(provenance)}:
                forest._trees = IsolationTrees.from_arrays(trees, len(FEATURES))
            case _:
                raise ValueError("it holds no isolation forest of this version")
        if not -1 <= offset < 0:
            raise ValueError(f"the offset of its scores is {offset}")
        forest._offset, forest.model_id, forest.provenance = offset, model_id, provenance
        return forest

    @property
    def content(self) -> dict[str, Any]:
        """What `from_content` makes the forest of."""
        return {
            "trees": self._trees.arrays,
            "offset": self._offset,
            "model_id": self.model_id,
            "provenance": self.provenance,
        }

    def score(self, rows: Array) -> Array:
        """Return `score_samples / offset_` of each row: 0 to 1 is normal, above 1 anomalous; NaN for a row with NaN."""
        scores = np.full(len(rows), np.nan)
        known = np.isfinite(rows).all(axis=1)
        if known.any():
            scores[known] = self._trees.score_samples(_compressed(np.abs(rows[known]))) / self._offset
        return scores


def forest_rows(residuals: Array, keys: Sequence[SignalKey], gates: Iterable[Pair]) -> dict[Pair, Array]:
    """Return the rows that a forest learns from or scores.

    Args:
        residuals: (n, C), NaN where there is none.
        keys: the C signals.
        gates: the layers and gates.

    Returns:
        (layer, gate) → (n, F) with the F of `FEATURES`. Missing residuals of a layer's parameters count as 0; missing
        ones of the gate itself are NaN.
    """
    rows: dict[Pair, Array] = {series: np.zeros((len(residuals), len(FEATURES))) for series in gates}
    of_layer: dict[str, list[Array]] = {}
    for (layer, _), table in rows.items():
        of_layer.setdefault(layer, []).append(table)
    for i, (layer, part, signal) in enumerate(keys):
        if signal in _OF_UPDATES:
            at, values = FEATURES.index(signal), np.nan_to_num(residuals[:, i])
            for table in of_layer.get(layer, ()):
                table[:, at] = np.where(np.abs(values) > np.abs(table[:, at]), values, table[:, at])
        elif signal in LEVEL_SIGNALS and (layer, part) in rows:
            rows[layer, part][:, FEATURES.index(signal)] = residuals[:, i]
    return rows


def _compressed(residuals: Array) -> Array:
    return np.asarray(np.log(np.maximum(residuals, RESIDUAL_FLOOR)))
