"""What people use otherwise, on the same captures: fixed thresholds, a plain isolation forest, a test against a trend.

Each takes the readings of a run and gives the times that it has a verdict on, and its verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.faults.judge import Mask
from bench.faults.readings import Readings

GRADIENT_LIMIT: Final = 0.8
SATURATION_LIMIT: Final = 0.6

CONTAMINATION: Final = 0.05
WARM_UP: Final = 0.3
"""The share of a run that the forest is trained on."""

LATELY: Final = 3
TREND: Final = 8
RANK: Final = 5
SKETCH_LIMIT: Final = 4.854
"""At which the sketch has 10 false alarms per 1,000 captures of the healthy runs of the develop split."""
_SKETCHED: Final = ("mean", "std", "entropy", "zero_crossing_rate", "saturated_low", "saturated_high")
_SKETCHED_LOGS: Final = ("gradient_norm", "update_ratio", "weight_norm")
LEAST: Final = 1e-3
"""What a share, or the logarithm of a norm, moves by and still counts as still."""
_SETTLED: Final = 8
"""Residuals that a series needs before it has a scale."""
_TINY: Final = 1e-12

Verdicts = tuple[NDArray[Any], Mask]
Array = NDArray[np.float64]


def fixed_thresholds(readings: Readings) -> Verdicts:
    """The norm of all gradients above 0.8, or more than 0.6 of a gate's activations saturated."""
    saturated = [
        low + readings.gates[layer, gate, "saturated_high"]
        for (layer, gate, field), low in readings.gates.items()
        if field == "saturated_low"
    ]
    alarms = (np.nan_to_num(saturated) > SATURATION_LIMIT).any(axis=0)
    return readings.times, alarms | (_gradient_norm(readings) > GRADIENT_LIMIT)


def isolation_forest(readings: Readings) -> Verdicts:
    """One forest, trained on all gates of all layers in the first 30 % of the run.

    Its features are the mean activation, the variance of the layer's gradient (as its sum of squares), the zero
    crossing rate and the entropy; 0 stands for what is not known. A forest for each gate alarms more often yet.
    """
    from sklearn.ensemble import IsolationForest  # noqa: PLC0415 - takes seconds, and what records does without it

    warm_up = int(len(readings.times) * WARM_UP)
    rows = []
    for layer, gate in sorted({key[:2] for key in readings.gates}):
        fields = [readings.gates[layer, gate, name] for name in ("mean", "zero_crossing_rate", "entropy")]
        rows.append(np.nan_to_num(np.stack([*fields, _gradient_norm(readings, layer) ** 2], axis=1), posinf=0.0))
    samples = np.stack(rows)
    forest = IsolationForest(contamination=CONTAMINATION, random_state=0)
    forest.fit(samples[:, :warm_up].reshape(-1, samples.shape[-1]))
    found = forest.predict(samples[:, warm_up:].reshape(-1, samples.shape[-1])).reshape(len(samples), -1)
    return readings.times[warm_up:], (found < 0).any(axis=0)


def sketch(readings: Readings) -> Verdicts:
    """The fifth largest departure of any series from its own trend is above a limit."""
    scores = sketch_scores(readings)
    judged = np.isfinite(scores)
    return readings.times[judged], scores[judged] > SKETCH_LIMIT


def sketch_scores(readings: Readings) -> Array:
    """(captures,): the fifth largest departure of all series; NaN before there are five."""
    followed = [values for key, values in readings.gates.items() if key[-1] in _SKETCHED]
    logs = [np.log(np.maximum(values, _TINY)) for key, values in readings.updates.items() if key[-1] in _SKETCHED_LOGS]
    found = np.stack([departures(values) for values in followed + logs])
    ranked = -np.sort(-np.where(np.isfinite(found), found, -1.0), axis=0)
    fifth = ranked[min(RANK, len(ranked)) - 1]
    return np.where(fifth >= 0, fifth, np.nan)


def departures(values: Array) -> Array:
    """How far the median of the last 3 captures lies off the line through the 8 before them.

    The distance is in units of 1.4826 times the median of the series' own earlier ones (a standard deviation where they
    are normal), at least LEAST; NaN before there are 8 of these, and where a value is not finite.

    Args:
        values: (captures,).
    """
    reach = TREND + LATELY
    result = np.full(len(values), np.nan)
    if len(values) < reach:
        return result
    with np.errstate(invalid="ignore"):
        windows = np.lib.stride_tricks.sliding_window_view(values, reach)
        at = np.arange(TREND) - (TREND - 1) / 2
        past = windows[:, :TREND]
        ahead = TREND + (LATELY - 1) / 2 - (TREND - 1) / 2
        line = past.mean(axis=1) + past @ at / (at @ at) * ahead
        distance = np.abs(np.median(windows[:, TREND:], axis=1) - line)
    for k in range(_SETTLED + LATELY, len(distance)):
        earlier = distance[: k - LATELY]
        earlier = earlier[np.isfinite(earlier)]
        if len(earlier) >= _SETTLED and np.isfinite(distance[k]):
            scale = max(1.4826 * float(np.median(earlier)), LEAST)
            result[k + reach - 1] = distance[k] / scale
    return result


def _gradient_norm(readings: Readings, layer: str | None = None) -> Array:
    """(captures,): of all parameters, or of a layer's; before clipping where that is known, 0 where nothing is."""
    squares = np.zeros(len(readings.times))
    for (of, param, field), clipped in readings.updates.items():
        if field == "gradient_norm_clipped" and layer in (None, of):
            whole = readings.updates.get((of, param, "gradient_norm"), clipped)
            squares += np.nan_to_num(np.where(np.isfinite(whole), whole, clipped)) ** 2
    norm: Array = np.sqrt(squares)
    return norm


PEERS: Final[Mapping[str, Callable[[Readings], Verdicts]]] = {
    "fixed thresholds": fixed_thresholds,
    "plain isolation forest": isolation_forest,
    "sketch": sketch,
}
"""By the name that the table gives it."""
