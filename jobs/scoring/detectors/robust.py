"""The robust detector: how many signals of a layer are off their forecast at once, and by how much.

One signal of many always jumps somewhere, so the largest residual alone proves little; a fault moves several. The
largest must be far off, the second largest less so, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.jobs.scoring.captures import Array, Pair
from gatewatch.jobs.scoring.detectors.base import Batch, Detector, Scores
from gatewatch.jobs.scoring.signals import PROBE_LOSS

LIMITS: Final[Mapping[int, float]] = {1: 12.5, 2: 8.3, 3: 6.9, 4: 6.3, 6: 5.3, 10: 4.1}
"""Rank → what the residual of that rank, largest first, must exceed. Chosen on healthy runs of `bench.faults`'
develop split with room to spare, see docs/decisions/0036-room-below-the-limit.md, and never on those that it is judged
on."""
MIN_OWN_RESIDUAL: Final = 3.0
"""The residual from which a series takes part in its layer's evidence."""


class Robust(Detector):
    """Scores each series by its layer's evidence, as far as the series itself takes part in it.

    Series are the gates, the parameters of all layers, and (`_model`, `loss`). Signals of layers without captured
    gates, such as dense layers, and of the loss count as evidence in every layer. The loss of the probe stands alone:
    it is no evidence of where something happened, and that it falls is what a training is for.
    """

    name = "robust"
    waits_for_learning = True

    def score(self, batch: Batch) -> Scores:
        """Return the score of every series that has a signal; NaN where none of its signals has a residual."""
        z = _without_explained_updates(batch)
        none = np.zeros(len(z), dtype=bool)
        layers: dict[str, NDArray[np.bool_]] = {}
        for layer, gate in batch.captures.gates:
            layers[layer] = layers.get(layer, none) | batch.captures.captured((layer, gate))[batch.first :]
        of_layer = np.stack([layers.get(key.layer, none) for key in batch.keys], axis=1)
        of_probe = np.array([key.signal == PROBE_LOSS for key in batch.keys])
        count = np.maximum(np.sum([*layers.values()], axis=0), 1)
        anywhere, by_layer = np.zeros(len(z)), {}
        for layer, captured in layers.items():
            others = of_layer & np.array([key.layer != layer for key in batch.keys])
            used = ~others.all(axis=0) & ~of_probe
            by_layer[layer] = evidence(np.where(others, 0.0, z)[:, used], count)
            anywhere = np.where(captured, np.maximum(anywhere, by_layer[layer]), anywhere)
        scores: dict[Pair, Array] = {}
        for series, columns in batch.columns.items():
            own = np.abs(z[:, columns])
            largest = np.where(np.isfinite(own).any(axis=1), np.max(np.nan_to_num(own), axis=1), np.nan)
            of_own = np.where(layers.get(series[0], none), by_layer.get(series[0], anywhere), anywhere)
            scores[series] = np.minimum(of_own, largest / MIN_OWN_RESIDUAL)
        for i, key in enumerate(batch.keys):
            if of_probe[i]:
                scores[key[:2]] = np.maximum(z[:, i], 0.0) / LIMITS[1]
        return Scores(scores)


def evidence(residuals: Array, layers: int | NDArray[np.integer[Any]] = 1) -> Array:
    """Return the largest ratio of the k-th largest residual of a layer to the limit of rank k.

    Args:
        residuals: (n, C), of the layer's signals, signed; NaN counts as 0.
        layers: how many layers are scored side by side, or (n,), how many at each capture. The largest of so many is
            larger by chance: for normal residuals the square of a limit grows by 2 ln(layers).

    Returns:
        (n,), above 1 where a limit is exceeded.
    """
    sizes = np.abs(np.nan_to_num(residuals))
    ordered = -np.sort(-sizes, axis=1)
    result = np.zeros(len(sizes))
    for rank, limit in LIMITS.items():
        if rank <= ordered.shape[1]:
            result = np.maximum(result, ordered[:, rank - 1] / np.sqrt(limit**2 + 2 * np.log(layers)))
    return result


def _without_explained_updates(batch: Batch) -> Array:
    """Return (n, C) residuals, with 0 for an update ratio once a learning rate was logged: rates have schedules, so
    only what they do not explain is evidence."""
    column, z = {key: i for i, key in enumerate(batch.keys)}, batch.residuals.z.copy()
    for key, i in column.items():
        per_rate = key._replace(signal="update_per_rate")
        if key.signal == "update_ratio" and per_rate in column:
            logged = np.isfinite(batch.residuals.value[:, column[per_rate]])
            z[np.logical_or.accumulate(logged) | (per_rate in batch.observed), i] = 0.0
    return z
