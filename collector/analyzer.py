"""`StateAnalyzer`: statistics of gradients, activations or weights in hand, from any framework."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from gatewatch.collector.arrays import Array, iter_arrays
from gatewatch.collector.cells import TANH, gate_scale
from gatewatch.collector.statistics import gate_statistics
from gatewatch.collector.text import safe_repr
from gatewatch.collector.updates import tally, update_fields

_KEYS: Final = ("activations", "gradients", "before", "after")


class StateAnalyzer:
    """Computes metrics of activations, gradients and weights, without a monitor, a run or a store.

    Every argument that takes arrays accepts NumPy arrays, tensors of TensorFlow, torch or Keras, numbers, and lists and
    mappings of these, nested to any depth. An entry that is None (a variable without a gradient) is skipped. Values
    that are not finite are left out; `calculate_state_metrics` counts them.
    """

    @staticmethod
    def calculate_gradient_magnitude(gradients: Any) -> float:
        """Return the global L2 norm of gradients: √Σ‖g‖², as `clip_by_global_norm` and `clip_grad_norm_` compute it.

        Args:
            gradients: gradients of the loss, of any shapes.

        Returns:
            The norm over the finite values; NaN where there is none.

        Raises:
            TypeError: an entry is no array of numbers.
            ValueError: there is no value at all.
        """
        norm = tally(_arrays(gradients, "gradients")).norm
        return math.nan if norm is None else norm

    @staticmethod
    def detect_activation_saturation(activations: Any, threshold: float = 0.95, *, gate: str | None = None) -> float:
        """Return the share of activations that are saturated: |a| > threshold.

        If a gate is named, its own scale is used. A sigmoid gate (input, forget, output, update, reset) is saturated on
        both sides, where a > threshold or a < 1 − threshold. A cell state is saturated where |tanh(a)| > threshold.
        Gradients do not pass saturated gates (Karpathy, Johnson and Fei-Fei 2015, "Visualizing and Understanding
        Recurrent Networks", with 0.9).

        Args:
            activations: activations of any shapes.
            threshold: above 0; with a gate also below 1, and for a sigmoid gate at least 0.5.
            gate: name of a gate, such as "forget"; a name that no cell has is measured on the scale of tanh.

        Returns:
            0 to 1, over the finite activations.

        Raises:
            TypeError: an entry is no array of numbers.
            ValueError: there is no finite activation, or the threshold is out of range.
        """
        low, high = _limits(threshold, gate)
        finite = _finite(_arrays(activations, "activations"))
        if not finite.size:
            raise ValueError("activations: none of them is finite")
        return float(np.mean((finite > high) | (finite < low)))

    @staticmethod
    def compute_update_frequency(before: Any, after: Any, *, tolerance: float = 0.0) -> float:
        """Return the share of weights that changed by more than a tolerance: |after − before| > tolerance.

        Args:
            before: the weights before one step or several, of any shapes.
            after: the weights afterwards, with the same shapes and nesting.
            tolerance: the largest change that does not count.

        Returns:
            0 to 1, over the weights that are finite before and after.

        Raises:
            TypeError: an entry is no array of numbers.
            ValueError: the shapes differ, no weight is finite, or the tolerance is negative.
        """
        if not tolerance >= 0:
            raise ValueError(f"tolerance={safe_repr(tolerance)}: must be a number from 0 up")
        changes = []
        for old, new in _pairs(before, after):
            finite = np.isfinite(old) & np.isfinite(new)
            changes.append(np.abs(new[finite].astype(np.float64) - old[finite].astype(np.float64)))
        moved = np.concatenate(changes) > tolerance
        if not moved.size:
            raise ValueError("before and after: no weight of both is finite")
        return float(moved.mean())

    @staticmethod
    def calculate_state_metrics(batch: Mapping[str, Any]) -> dict[str, float]:
        """Compute metrics for whichever keys are present.

        - of `activations`: mean_activation, var_activation, saturation, zero_crossing_rate, entropy, as in the points
          (`gate_stats`: mean, std², saturated_low + saturated_high, …). An array under a gate's name, such as in what
          `gates()` returns, is measured on that gate's scale, any other on that of tanh. For several arrays, mean and
          variance are computed over all values together. The other metrics are averaged over the arrays, weighted by
          their number of finite values;
        - of `gradients`: gradient_magnitude, mean_gradient, var_gradient;
        - of `before` and `after`, weights: update_frequency, and update_ratio = ‖after − before‖ / ‖before‖, usually
          about 1e-3 (Karpathy, CS231n);
        - of all: nan_count, inf_count. A step that `gates()` left out as masked is NaN, and counted here.

        A metric that is undefined (no finite value, no weight other than zero) has no entry.

        Args:
            batch: any of `activations`, `gradients`, and `before` with `after`. Activations are (batch, time, units),
                (time, units) or (time,).

        Raises:
            TypeError: the batch is no mapping, or an entry is no array of numbers.
            ValueError: the batch is empty or has an unknown key, has only one of `before` and `after`, or has shapes
                that do not match.
        """
        if not isinstance(batch, Mapping):
            raise TypeError(f"batch: must be a mapping with any of {', '.join(_KEYS)}, not {type(batch).__name__}")
        unknown = [str(key) for key in batch if key not in _KEYS]
        if unknown or not batch:
            what = f"{', '.join(unknown)} is not known" if unknown else "is empty"
            raise ValueError(f"batch: {what}; give any of {', '.join(_KEYS)}")
        if ("before" in batch) != ("after" in batch):
            raise ValueError("batch: before and after go together: the weights on both sides of a step")
        metrics: dict[str, float] = {}
        with np.errstate(over="ignore", invalid="ignore"):
            if "activations" in batch:
                metrics |= _activation_metrics(batch["activations"])
            if "gradients" in batch:
                metrics |= _gradient_metrics(batch["gradients"])
        if "before" in batch:
            olds, news = zip(*_pairs(batch["before"], batch["after"]), strict=True)
            fields = update_fields(olds, news)
            metrics |= {name: float(fields[name]) for name in ("update_frequency", "update_ratio") if name in fields}
        tallies = [tally([array for _, array in iter_arrays(values, key)]) for key, values in batch.items()]
        return {name: value for name, value in metrics.items() if math.isfinite(value)} | {
            "nan_count": float(sum(one.nan for one in tallies)),
            "inf_count": float(sum(one.inf for one in tallies)),
        }


def _activation_metrics(activations: Any) -> dict[str, float]:
    rows = []
    for name, array in _named(activations, "activations"):
        fields = gate_statistics(_in_time(array), gate_scale(name))
        if "mean" in fields:
            saturation = fields["saturated_low"] + fields["saturated_high"]
            others = (saturation, fields["zero_crossing_rate"], fields["entropy"])
            rows.append((np.isfinite(array).sum(), fields["mean"], fields["std"], *others))
    if not rows:
        return {}
    weights, means, stds, *columns = np.transpose(rows)
    mean, *averages = (float(np.average(column, weights=weights)) for column in (means, *columns))
    variance = float(np.average(stds**2 + (means - mean) ** 2, weights=weights))
    names = ("mean_activation", "var_activation", "saturation", "zero_crossing_rate", "entropy")
    return dict(zip(names, (mean, variance, *averages), strict=True))


def _gradient_metrics(gradients: Any) -> dict[str, float]:
    finite = _finite(_arrays(gradients, "gradients"))
    if not finite.size:
        return {}
    return {
        "gradient_magnitude": StateAnalyzer.calculate_gradient_magnitude(gradients),
        "mean_gradient": float(finite.mean(dtype=np.float64)),
        "var_gradient": float(finite.var(dtype=np.float64)),
    }


def _finite(arrays: list[Array]) -> Array:
    return np.concatenate([array[np.isfinite(array)] for array in arrays])


def _in_time(array: Array) -> Array:
    """Return an array as (batch, time, units)."""
    if array.ndim < 2:
        return array.reshape(1, -1, 1)
    return array[None] if array.ndim == 2 else array.reshape(*array.shape[:2], -1)


def _limits(threshold: float, gate: str | None) -> tuple[float, float]:
    scale = TANH if gate is None else gate_scale(gate)
    least, below = (0.5 if scale.low == 0 else 0.0), (math.inf if gate is None else 1.0)
    if not (least <= threshold < below and threshold > 0):
        where = "above 0" if gate is None else f"from {least} to below 1 for the gate {gate!r}"
        raise ValueError(f"threshold={safe_repr(threshold)}: must be a number {where}")
    if scale.low == 0:
        return 1 - threshold, threshold
    high = math.atanh(threshold) if scale.through_tanh else threshold
    return -high, high


def _arrays(values: Any, what: str) -> list[Array]:
    return [array for _, array in _named(values, what)]


def _named(values: Any, what: str) -> list[tuple[str, Array]]:
    named = [(name, array) for name, array in iter_arrays(values, what) if array.size]
    if not named:
        raise ValueError(f"{what}: there are none")
    return named


def _pairs(before: Any, after: Any) -> list[tuple[Array, Array]]:
    olds, news = list(iter_arrays(before, "before")), list(iter_arrays(after, "after"))
    shapes = [[(name, array.shape) for name, array in side] for side in (olds, news)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"before and after differ in shape: {_describe(shapes[0])} and {_describe(shapes[1])}")
    pairs = [(old, new) for (_, old), (_, new) in zip(olds, news, strict=True) if old.size]
    if not pairs:
        raise ValueError("before and after: there are no weights")
    return pairs


def _describe(shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{name} {shape}".lstrip() for name, shape in shapes) or "nothing"
