"""Signals: the numbers of a run that are scored. One row for each, with its floor and its words.

A signal is a number of one gate, one parameter or the whole model at each capture, on a scale on which the same change
means the same in any network: shares of a gate's range, or logarithms of norms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.cells import gate_scale
from gatewatch.jobs.scoring.captures import Captures, Pair

Array = NDArray[np.floating[Any]]

MODEL: Final = "_model"
"""Stands for the layer in points about the whole network."""
LOSS: Final = "loss"
"""Stands for the gate in points about the loss."""
_LOSSES: Final = ("loss", "train/loss")
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
_NO_NOISE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Series:
    """The captures of one gate or parameter, or of the loss, from which its signals are computed. n captures.

    Attributes:
        captures: of the whole run and phase.
        pair: layer and gate, layer and parameter, or `MODEL` and `LOSS`.
        still: (n,), whether no update of any weight was recorded, as in a backtest.
        signals: name → (n,), the signals of the series that come earlier in the list.
    """

    captures: Captures
    pair: Pair
    still: NDArray[np.bool_]
    signals: dict[str, Array] = field(default_factory=dict)

    @property
    def width(self) -> float:
        """The width of the gate's range."""
        scale = gate_scale(self.pair[1])
        return scale.high - scale.low

    @property
    def units(self) -> Array | None:
        """(n, units), mean activations as shares of the gate's range; None where they were not recorded."""
        units = self.captures.units.get(self.pair)
        return None if units is None else units / self.width

    def statistic(self, name: str) -> Array:
        """Return (n,), a field of `gate_stats`."""
        return self.captures.statistic(self.pair, name)

    def metric(self, names: tuple[str, ...]) -> Array | None:
        """Return (n,), the first of these metrics that was logged; None where none was."""
        return next((self.captures.metrics[name] for name in names if name in self.captures.metrics), None)


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal.

    Attributes:
        name: stored as `why_<name>` where it causes a score above 1.
        compute: of a series: (n,), NaN where a capture has no value; None where the series has no such signal.
        floor: the lower bound of the usual distance from the forecast, which residuals are divided by.
        rises, falls: what a residual above, or below, 0 means, for people.
        kind: `level`: it moves with learning, faster when the weights do. `rate`: the speed of learning or of the
            input; schedules and markets change it, so it has a residual only outside its range so far.
        look_back: how many earlier captures a value depends on.
        relative: the floor is a share of the signal's recent size, not a distance.
    """

    name: str
    compute: Callable[[Series], Array | None]
    floor: float
    rises: str
    falls: str
    kind: Literal["level", "rate"] | None = None
    look_back: int = 0
    relative: bool = False


class SignalKey(NamedTuple):
    """A layer; its gate or parameter, or `LOSS`; and the name of the signal."""

    layer: str
    part: str
    signal: str


def extract_signals(captures: Captures) -> dict[SignalKey, Array]:
    """Return the signals of n captures: each (n,), NaN where a capture has no value."""
    recorded = [np.isfinite(captures.update(pair, "step")) for pair in captures.updates]
    still = ~np.any(recorded, axis=0) if recorded else np.ones(len(captures.time), dtype=bool)
    # A bias begins at zero and may have one element: its ratio and its gradient are erratic.
    updates = [pair for pair in captures.updates if pair[1] != "bias"]
    result: dict[SignalKey, Array] = {}
    for rows, pairs in ((GATE_SIGNALS, [*captures.gates]), (UPDATE_SIGNALS, updates), (LOSS_SIGNALS, [(MODEL, LOSS)])):
        for pair in pairs:
            series = Series(captures, pair, still)
            for row in rows:
                if (values := row.compute(series)) is not None:
                    series.signals[row.name] = result[SignalKey(*pair, row.name)] = values
    return result


def _saturation(of: Series) -> Array:
    return of.statistic("saturated_low") + of.statistic("saturated_high")


def response(of: Series) -> Array | None:
    """Return how much units vary with their input: the part of the spread that is not between units, log10."""
    if (units := of.units) is None:
        return None
    between = _over_units(units, lambda values: np.var(values, axis=1))
    result: Array = np.log10(np.sqrt(np.maximum(of.signals["spread"] ** 2 - between, _STILL**2)))
    return result


def step_size(of: Series) -> Array | None:
    """Return how far the units went since the capture before, root mean square, log10; None where weights moved at
    every capture."""
    if (units := of.units) is None:
        return None
    moved = np.full(len(units), np.nan)
    moved[1:] = np.sqrt(_over_units(np.diff(units, axis=0), lambda values: np.mean(values**2, axis=1)))
    size = np.where(of.still, np.log10(np.maximum(moved, _STILL)), np.nan)
    return size if np.isfinite(size).any() else None


def max_step(of: Series) -> Array | None:
    """Return the largest value of the signal `movement` over the newest captures; None where there is none."""
    sizes = of.signals.get("movement")
    return None if sizes is None else _rolling(sizes, MAX_STEP_CAPTURES, np.max)


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


def _noise(values: Array) -> Array:
    steps = np.full(len(values), np.nan)
    steps[1:] = np.abs(np.diff(values))
    result: Array = np.log10(_rolling(steps, NOISE_CAPTURES, np.mean) + _NO_NOISE)
    return result


def _gradient(of: Series) -> Array:
    given, clipped = (of.captures.update(of.pair, name) for name in ("gradient_norm", "gradient_norm_clipped"))
    return _log10(np.where(np.isfinite(given), given, clipped))


def _update_per_rate(of: Series) -> Array | None:
    rate = of.metric(_RATES)
    return None if rate is None else np.where(rate > 0, of.signals["update_ratio"] - _log10(rate), np.nan)


def _of_loss(work: Callable[[Array], Array]) -> Callable[[Series], Array | None]:
    def compute(of: Series) -> Array | None:
        loss = of.metric(_LOSSES)
        return None if loss is None else work(loss)

    return compute


def _level(values: Array) -> Array:
    return _rolling(values, LEVEL_CAPTURES, np.mean)


def _log10(values: Array) -> Array:
    result: Array = np.log10(np.maximum(values, LOG_FLOOR))
    return result


GATE_SIGNALS: Final = (
    Signal(
        "mean_activation",
        lambda of: of.statistic("mean") / of.width,
        0.005,
        "the gate opens further than its trend",
        "the gate closes further than its trend",
        "level",
    ),
    Signal(
        "spread",
        lambda of: of.statistic("std") / of.width,
        0.005,
        "its units differ more from each other and over time",
        "its units become alike, or stand still",
        "level",
    ),
    Signal(
        "entropy",
        lambda of: of.statistic("entropy"),
        0.05,
        "its activations spread over more of the scale",
        "its activations gather at few values",
        "level",
    ),
    Signal(
        "zero_crossing_rate",
        lambda of: of.statistic("zero_crossing_rate"),
        0.01,
        "it flips from bar to bar more often: noise rather than regimes",
        "it hardly changes from bar to bar: the inputs no longer move it",
        "level",
    ),
    Signal(
        "saturation",
        _saturation,
        0.03,
        "more of it is stuck fully open or shut, where no gradient passes",
        "less of it is fully open or shut",
        "level",
    ),
    Signal(
        "response",
        response,
        0.05,
        "its units follow their input more than before",
        "its units follow their input less: the market hardly reaches them",
        "level",
    ),
    Signal(
        "movement",
        step_size,
        0.15,
        "its units move further from capture to capture",
        "its units stand still from capture to capture",
        "rate",
        look_back=1,
    ),
    Signal(
        "unrest",
        max_step,
        0.1,
        "its state jumps between captures: is it reset where it should be?",
        "its state no longer jumps: is it reset at an episode's beginning?",
        "rate",
        look_back=MAX_STEP_CAPTURES,
    ),
)
UPDATE_SIGNALS: Final = (
    Signal(
        "gradient_norm",
        _gradient,
        0.2,
        "the gradient grew: outliers in the batch?",
        "the gradient shrank: little is learned",
        "rate",
    ),
    Signal(
        "gradient_level",
        lambda of: _level(of.signals["gradient_norm"]),
        0.1,
        "the gradient has been larger lately",
        "the gradient has been smaller lately",
        "rate",
        look_back=LEVEL_CAPTURES - 1,
    ),
    Signal(
        "gradient_noise",
        lambda of: _noise(of.signals["gradient_norm"]),
        0.15,
        "the gradient jumps from capture to capture",
        "the gradient hardly changes any more",
        look_back=NOISE_CAPTURES,
    ),
    Signal(
        "update_ratio",
        lambda of: _log10(of.captures.update(of.pair, "update_ratio")),
        0.2,
        "the weights move further in a step: is the learning rate too high?",
        "the weights hardly move in a step",
        "rate",
    ),
    Signal(
        "update_per_rate",
        _update_per_rate,
        0.1,
        "the weights move further than the learning rate explains",
        "the weights move less than the learning rate explains",
    ),
)
LOSS_SIGNALS: Final = (
    Signal(LOSS, _of_loss(lambda loss: loss), 0.01, "the loss rose", "the loss fell", relative=True),
    Signal(
        "loss_level",
        _of_loss(_level),
        0.01,
        "the loss has been higher lately",
        "the loss has been lower lately",
        look_back=LEVEL_CAPTURES - 1,
        relative=True,
    ),
    Signal(
        "loss_noise",
        _of_loss(_noise),
        0.15,
        "the loss jumps from capture to capture",
        "the loss hardly changes any more",
        look_back=NOISE_CAPTURES,
    ),
)
SIGNALS: Final[Mapping[str, Signal]] = MappingProxyType(
    {row.name: row for row in (*GATE_SIGNALS, *UPDATE_SIGNALS, *LOSS_SIGNALS)}
)
LEVEL_SIGNALS: Final = tuple(row.name for row in SIGNALS.values() if row.kind == "level")
RATE_SIGNALS: Final = tuple(row.name for row in SIGNALS.values() if row.kind == "rate")
LOOK_BACK: Final = max(row.look_back for row in SIGNALS.values())
