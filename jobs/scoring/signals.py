"""Signals: the numbers of a run that are scored. `SIGNALS` has a row for each, `PHRASES` says what its residuals mean.

A signal is a number of one gate, one parameter or the whole model at each capture, on a scale on which the same change
means the same in any network: shares of a gate's range, or logarithms of norms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.cells import gate_scale
from gatewatch.jobs.scoring.captures import Array, Captures, Pair
from gatewatch.jobs.thresholds import GRADIENT_VANISHED

MODEL: Final = "_model"
"""Stands for the layer in points about the whole network."""
LOSS: Final = "loss"
"""Stands for the gate in points about the loss."""
PROBE_LOSS: Final = "probe_loss"
"""Stands for the gate in points about the loss of the probe."""
LOSSES: Final = ("loss", "train/loss")
_RATES: Final = ("learning_rate", "lr", "train/learning_rate")
MAX_STEP_CAPTURES: Final = 12
"""Number of captures over which the largest step is taken: they span the start of an episode, where state is reset."""
LEVEL_CAPTURES: Final = 5
"""Number of captures averaged to get a `*_level` signal."""
NOISE_CAPTURES: Final = 6
"""Number of differences from capture to capture averaged to get a `*_noise` signal."""
_STILL: Final = 1e-6
LOG_FLOOR: Final = 1e-12
"""Smaller values count as 0 where a logarithm is taken."""
LARGEST: Final = 1e100
"""Larger values count as this: their squares are numbers still."""
ROUNDING: Final = 1e-5
"""A number that moves by less than this share of its size, or of a gate's range, stands still. The spacing of single
precision is 1.2e-7 (IEEE 754), and sums over a batch and over time round differently on another machine."""
VANISHED_LOG10: Final = math.log10(GRADIENT_VANISHED)
"""Gradients, and updates as shares of their weights, below this move nothing in single precision."""
_NO_NOISE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal.

    Attributes:
        name: stored as `why_<name>` where it causes a score above 1.
        floor: lower bound of the usual distance from the forecast. Residuals are divided by that distance.
        kind: `level`: the signal changes as the network learns, faster when the weights change faster. `rate`: the
            signal is the speed of learning or of the input. Schedules and markets change such a speed, so it has a
            residual only outside the range that it has had in this run. None: neither.
        look_back: number of earlier captures that a value depends on.
        relative: whether the floor is a share of the signal's recent size instead of a distance.
        nothing: values up to this are all the same to a signal that has lately been below it.
    """

    name: str
    floor: float
    kind: Literal["level", "rate"] | None = None
    look_back: int = 0
    relative: bool = False
    nothing: float = -math.inf


_ROWS: Final = (
    Signal("mean_activation", 0.005, "level"),
    Signal("spread", 0.005, "level"),
    Signal("entropy", 0.05, "level"),
    Signal("zero_crossing_rate", 0.01, "level"),
    Signal("saturation", 0.03, "level"),
    Signal("response", 0.05, "level"),
    Signal("movement", 0.15, "rate", look_back=1),
    Signal("unrest", 0.1, "rate", look_back=MAX_STEP_CAPTURES),
    Signal("gradient_norm", 0.2, "rate", nothing=VANISHED_LOG10),
    Signal("gradient_level", 0.1, "rate", look_back=LEVEL_CAPTURES - 1, nothing=VANISHED_LOG10),
    Signal("gradient_noise", 0.15, look_back=NOISE_CAPTURES),
    Signal("update_ratio", 0.2, "rate", nothing=VANISHED_LOG10),
    Signal("update_per_rate", 0.1),
    Signal(LOSS, 0.01, relative=True),
    Signal("loss_level", 0.01, look_back=LEVEL_CAPTURES - 1, relative=True),
    Signal("loss_noise", 0.15, look_back=NOISE_CAPTURES),
    Signal(PROBE_LOSS, 0.01, relative=True),
)
SIGNALS: Final[Mapping[str, Signal]] = {row.name: row for row in _ROWS}
LEVEL_SIGNALS: Final = tuple(row.name for row in _ROWS if row.kind == "level")
RATE_SIGNALS: Final = tuple(row.name for row in _ROWS if row.kind == "rate")
LOOK_BACK: Final = max(row.look_back for row in _ROWS)
PHRASES: Final[Mapping[str, tuple[str, str]]] = {
    "mean_activation": ("the gate opens further than its trend", "the gate closes further than its trend"),
    "spread": ("its units differ more from each other and over time", "its units become alike, or stand still"),
    "entropy": ("its activations spread over more of the scale", "its activations gather at few values"),
    "zero_crossing_rate": (
        "it flips from bar to bar more often: noise rather than regimes",
        "it hardly changes from bar to bar: the inputs no longer move it",
    ),
    "saturation": (
        "more of it is stuck fully open or shut, where no gradient passes",
        "less of it is fully open or shut",
    ),
    "response": (
        "its units follow their input more than before",
        "its units follow their input less: the market hardly reaches them",
    ),
    "movement": ("its units move further from capture to capture", "its units stand still from capture to capture"),
    "unrest": (
        "its state jumps between captures: is it reset where it should be?",
        "its state no longer jumps: is it reset at an episode's beginning?",
    ),
    "gradient_norm": ("the gradient grew: outliers in the batch?", "the gradient shrank: little is learned"),
    "gradient_level": ("the gradient has been larger lately", "the gradient has been smaller lately"),
    "gradient_noise": ("the gradient jumps from capture to capture", "the gradient hardly changes any more"),
    "update_ratio": (
        "the weights move further in a step: is the learning rate too high?",
        "the weights hardly move in a step",
    ),
    "update_per_rate": (
        "the weights move further than the learning rate explains",
        "the weights move less than the learning rate explains",
    ),
    LOSS: ("the loss rose", "the loss fell"),
    "loss_level": ("the loss has been higher lately", "the loss has been lower lately"),
    "loss_noise": ("the loss jumps from capture to capture", "the loss hardly changes any more"),
    PROBE_LOSS: ("the loss of the fixed probe rose: the network, not its feed", "the loss of the fixed probe fell"),
}
"""Signal → what a residual above 0 means, and what one below 0 means, for people."""


class SignalKey(NamedTuple):
    """A layer; its gate or parameter, or `LOSS`; and the name of the signal."""

    layer: str
    part: str
    signal: str


def extract_signals(captures: Captures) -> dict[SignalKey, Array]:
    """Return the signals of n captures: each (n,), NaN where a capture has no value."""
    recorded = [np.isfinite(captures.update(pair, "step")) for pair in captures.updates]
    still = ~np.any(recorded, axis=0) if recorded else np.ones(len(captures.time), dtype=bool)
    by_series = [(pair, _gate_signals(captures, pair, still)) for pair in captures.gates]
    # A bias begins at zero and may have one element: its ratio and its gradient are erratic.
    by_series += [(pair, _update_signals(captures, pair)) for pair in captures.updates if pair[1] != "bias"]
    by_series.append(((MODEL, LOSS), _loss_signals(captures)))
    if PROBE_LOSS in captures.metrics:
        by_series.append(((MODEL, PROBE_LOSS), {PROBE_LOSS: _bounded(captures.metrics[PROBE_LOSS])}))
    return {SignalKey(*pair, name): values for pair, signals in by_series for name, values in signals.items()}


def _gate_signals(captures: Captures, pair: Pair, still: NDArray[np.bool_]) -> dict[str, Array]:
    """Return the signals of a gate, by name; `still` is (n,): whether no update of any weight was recorded."""
    scale = gate_scale(pair[1])
    width = scale.high - scale.low
    mean, spread = (_bounded(captures.statistic(pair, name)) / width for name in ("mean", "std"))
    signals = {
        "mean_activation": mean,
        "spread": spread,
        "entropy": captures.statistic(pair, "entropy"),
        "zero_crossing_rate": captures.statistic(pair, "zero_crossing_rate"),
        "saturation": captures.statistic(pair, "saturated_low") + captures.statistic(pair, "saturated_high"),
    }
    # Where all activations are one number, rounding alone decides on which side of a bin's edge, or a limit, each is.
    one_number = spread < ROUNDING
    beyond = np.maximum(scale.saturated_low / width - mean, mean - scale.saturated_high / width) > ROUNDING
    of_one_number = {"entropy": 0.0, "zero_crossing_rate": 0.0, "saturation": beyond.astype(float)}
    signals |= {name: np.where(one_number, value, signals[name]) for name, value in of_one_number.items()}
    if pair in captures.units:
        units = _bounded(captures.units[pair]) / width
        signals["response"] = response(units, signals["spread"])
        moved = np.where(still, step_size(units), np.nan)
        if np.isfinite(moved).any():
            signals |= {"movement": moved, "unrest": _rolling(moved, MAX_STEP_CAPTURES, np.max)}
    return signals


def _update_signals(captures: Captures, pair: Pair) -> dict[str, Array]:
    given, clipped = (captures.update(pair, name) for name in ("gradient_norm", "gradient_norm_clipped"))
    gradient = _log10(np.where(np.isfinite(given), given, clipped))
    ratio = _log10(captures.update(pair, "update_ratio"))
    signals = {
        "gradient_norm": gradient,
        "gradient_level": _rolling(gradient, LEVEL_CAPTURES, np.mean),
        "gradient_noise": _noise(np.maximum(gradient, VANISHED_LOG10), ROUNDING),
        "update_ratio": ratio,
    }
    if (rate := first_logged(captures, _RATES)) is not None:
        signals["update_per_rate"] = np.where(rate > 0, ratio - _log10(rate), np.nan)
    return signals


def _loss_signals(captures: Captures) -> dict[str, Array]:
    if (loss := first_logged(captures, LOSSES)) is None:
        return {}
    loss = _bounded(loss)
    rounding = ROUNDING * _rolling(np.abs(loss), NOISE_CAPTURES + 1, np.mean)
    return {LOSS: loss, "loss_level": _rolling(loss, LEVEL_CAPTURES, np.mean), "loss_noise": _noise(loss, rounding)}


def first_logged(captures: Captures, names: Sequence[str]) -> Array | None:
    """Return (n,), the first of these metrics that was logged; None where none was."""
    return next((captures.metrics[name] for name in names if name in captures.metrics), None)


def response(units: Array, spread: Array) -> Array:
    """Return how much units vary with their input: the part of the spread that is not between units, log10.

    Args:
        units: (n, units), mean activations as shares of the gate's range.
        spread: (n,), standard deviation of all activations, alike.
    """
    between = _over_units(units, lambda values: np.var(values, axis=1))
    return _log10(np.sqrt(np.maximum(spread**2 - between, _STILL**2)))


def step_size(units: Array) -> Array:
    """Return how far (n, units) went since the capture before, root mean square, log10: (n,)."""
    moved = np.full(len(units), np.nan)
    moved[1:] = np.sqrt(_over_units(np.diff(units, axis=0), lambda values: np.mean(values**2, axis=1)))
    return _log10(moved, _STILL)


def _over_units(values: Array, reduce: Callable[[Array], Array]) -> Array:
    """Reduce each capture over the units that it has: (n,), NaN where it has none."""
    present = np.isfinite(values)
    result = np.full(len(values), np.nan)
    for units in np.unique(present, axis=0):
        if units.any():
            rows = (present == units).all(axis=1)
            result[rows] = reduce(np.ascontiguousarray(values[rows][:, units]))
    return result


def _rolling(values: Array, captures: int, reduce: Callable[..., Array]) -> Array:
    """Reduce a trailing window of captures: (n,), NaN where one of them is NaN or there are fewer."""
    result = np.full(len(values), np.nan)
    if len(values) >= captures:
        result[captures - 1 :] = reduce(np.lib.stride_tricks.sliding_window_view(values, captures), axis=1)
    return result


def _noise(values: Array, rounding: Array | float) -> Array:
    """Return the logarithm of the mean step from capture to capture, which is at least `rounding`: (n,)."""
    steps = np.full(len(values), np.nan)
    steps[1:] = np.abs(np.diff(values))
    return _log10(np.maximum(_rolling(steps, NOISE_CAPTURES, np.mean), rounding) + _NO_NOISE)


def _bounded(values: Array) -> Array:
    return np.clip(values, -LARGEST, LARGEST)


def _log10(values: Array, floor: float = LOG_FLOOR) -> Array:
    """Return the logarithms of numbers that are at least the floor, or count as it."""
    return np.asarray(np.log10(np.maximum(values, floor)))
