"""The numbers of a run that are followed: what they are called, and what counts as a change of each.

A channel is one statistic of one gate, one parameter or the whole model, brought to a scale on which the same change
means the same in any network: shares of a gate's range, or logarithms of norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.cells import gate_scale
from gatewatch.jobs.scoring.captures import Captures

Array = NDArray[np.floating[Any]]

MODEL: Final = "_model"
"""Stands for the layer in what is said of the whole network."""

FLOORS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "mean_activation": 0.005,
        "spread": 0.005,
        "entropy": 0.05,
        "zero_crossing_rate": 0.01,
        "saturation": 0.03,
        "movement": 0.15,
        "unrest": 0.1,
        "response": 0.05,
        "gradient_norm": 0.2,
        "gradient_level": 0.1,
        "gradient_noise": 0.15,
        "update_ratio": 0.2,
        "update_per_rate": 0.1,
        "loss": 0.01,
        "loss_level": 0.01,
        "loss_noise": 0.15,
    }
)
"""Feature → what counts as one usual deviation at the least, however still the channel was before.

Of a gate: mean_activation and spread are mean and standard deviation as shares of its range, saturation the share of
activations beyond its limits, entropy in the unit of `gate_stats`, response how much its units vary with their input.
Of a gate whose weights stand still: movement is how far the mean activations of its units went since the capture before
(root mean square, a share of the range), unrest the most of that lately. Of a parameter: gradient_norm, update_ratio,
and update_per_rate, which is that divided by the learning rate. Of the model: loss. A level is the mean of the newest
captures, noise the mean distance from one to the next.

response, movement, unrest, every noise, and what is said of parameters are logarithms to base 10. The floor of loss and
its level, which have no scale of their own, is a share of their recent size.
"""
RELATIVE: Final = frozenset({"loss", "loss_level"})
"""Features whose floor is a share of the channel's recent size."""
PACES: Final = frozenset({"gradient_norm", "gradient_level", "update_ratio", "movement", "unrest"})
"""Features that say how fast a network learns, or its input moves. Schedules and markets raise and lower them: what
lies within their range so far in the run is no deviation."""
LEVELS: Final = frozenset({"mean_activation", "spread", "entropy", "zero_crossing_rate", "saturation", "response"})
"""Features that move with learning: faster when the weights do."""
GATE_FEATURES: Final = ("mean_activation", "spread", "entropy", "zero_crossing_rate", "saturation", "response")
UPDATE_FEATURES: Final = ("gradient_norm", "update_ratio")
LOSS: Final = "loss"
_LOSSES: Final = ("loss", "train/loss")
_RATES: Final = ("learning_rate", "lr", "train/learning_rate")
UNREST_CAPTURES: Final = 12
"""An episode's beginning, where the state is reset, should be among so many captures to be missed when it is not."""
LEVEL_CAPTURES: Final = 5
NOISE_CAPTURES: Final = 6
"""Over so many captures a level is taken, and a noise."""
_STILL: Final = 1e-6
NONE: Final = 1e-12
"""What is smaller counts as nothing."""
_NO_NOISE: Final = 1e-9


class Channel(NamedTuple):
    """A layer; its gate, parameter, or what is logged; and the feature that is followed of it."""

    layer: str
    part: str
    feature: str


def followed(captures: Captures) -> dict[Channel, Array]:
    """The channels of captures: each (n,), NaN where a capture has no value."""
    return dict(_of_gates(captures)) | dict(_of_updates(captures)) | dict(_of_losses(captures))


def _of_gates(captures: Captures) -> Iterator[tuple[Channel, Array]]:
    told = [np.isfinite(captures.update(series, "step")) for series in captures.updates]
    still = ~np.any(told, axis=0) if told else np.ones(len(captures.time), dtype=bool)
    for series in captures.gates:
        layer, gate = series
        scale = gate_scale(gate)
        width = scale.high - scale.low
        values = {
            "mean_activation": captures.statistic(series, "mean") / width,
            "spread": captures.statistic(series, "std") / width,
            "entropy": captures.statistic(series, "entropy"),
            "zero_crossing_rate": captures.statistic(series, "zero_crossing_rate"),
            "saturation": captures.statistic(series, "saturated_low") + captures.statistic(series, "saturated_high"),
        }
        if series in captures.units:
            units = captures.units[series] / width
            values["response"] = _response(values["spread"], units)
            movement = np.where(still, _movement(units), np.nan)
            if np.isfinite(movement).any():
                values["movement"] = movement
                values["unrest"] = _lately(movement, UNREST_CAPTURES, np.max)
        for feature, value in values.items():
            yield Channel(layer, gate, feature), value


def _response(spread: Array, units: Array) -> Array:
    """(n,), how much a unit varies with what it is given: the part of the spread that is not between units."""
    between = _over_units(units, lambda known: np.var(known, axis=1))
    result: Array = np.log10(np.sqrt(np.maximum(spread**2 - between, _STILL**2)))
    return result


def _movement(units: Array) -> Array:
    moved = np.full(len(units), np.nan)
    moved[1:] = np.sqrt(_over_units(np.diff(units, axis=0), lambda known: np.mean(known**2, axis=1)))
    result: Array = np.log10(np.maximum(moved, _STILL))
    return result


def _over_units(values: Array, reduce: Callable[[Array], Array]) -> Array:
    """(n,), something of the units that are known at each capture, whatever is known at others; NaN where none is."""
    known = np.isfinite(values)
    found = np.full(len(values), np.nan)
    for units in np.unique(known, axis=0):
        if units.any():
            rows = (known == units).all(axis=1)
            found[rows] = reduce(np.ascontiguousarray(values[rows][:, units]))
    return found


def _lately(values: Array, captures: int, reduce: Callable[..., Array]) -> Array:
    """(n,), something of the newest captures at each, NaN where not all of them are known."""
    found = np.full(len(values), np.nan)
    if len(values) >= captures:
        found[captures - 1 :] = reduce(np.lib.stride_tricks.sliding_window_view(values, captures), axis=1)
    return found


def _noise(values: Array) -> Array:
    steps = np.full(len(values), np.nan)
    steps[1:] = np.abs(np.diff(values))
    result: Array = np.log10(_lately(steps, NOISE_CAPTURES, np.mean) + _NO_NOISE)
    return result


def _of_updates(captures: Captures) -> Iterator[tuple[Channel, Array]]:
    rate = next((captures.metrics[name] for name in _RATES if name in captures.metrics), None)
    for series in captures.updates:
        if series[1] == "bias":  # begins at zero and may have one element: its ratio and its gradient are erratic
            continue
        given, used = (captures.update(series, name) for name in ("gradient_norm", "gradient_norm_clipped"))
        ratio = _logarithm(captures.update(series, "update_ratio"))
        gradient = _logarithm(np.where(np.isfinite(given), given, used))
        values = {
            "gradient_norm": gradient,
            "gradient_level": _lately(gradient, LEVEL_CAPTURES, np.mean),
            "gradient_noise": _noise(gradient),
            "update_ratio": ratio,
        }
        if rate is not None:
            values["update_per_rate"] = np.where(rate > 0, ratio - _logarithm(rate), np.nan)
        for feature, value in values.items():
            yield Channel(*series, feature), value


def _of_losses(captures: Captures) -> Iterator[tuple[Channel, Array]]:
    found = next((captures.metrics[name] for name in _LOSSES if name in captures.metrics), None)
    if found is not None:
        yield Channel(MODEL, LOSS, "loss"), found
        yield Channel(MODEL, LOSS, "loss_level"), _lately(found, LEVEL_CAPTURES, np.mean)
        yield Channel(MODEL, LOSS, "loss_noise"), _noise(found)


def _logarithm(values: Array) -> Array:
    result: Array = np.log10(np.maximum(values, NONE))
    return result
