"""What a Keras optimizer's own state says of the gradient of one step.

Nothing is hooked into the training step, which may be compiled: the state before and after a step tells the gradient
that the optimizer used, since its rule is known. Where the rule is not (an optimizer of one's own, Adafactor, several
optimizers in one), the state keeps nothing of it (SGD without momentum), or rounding hides the answer, nothing is said:
what moved a weight need not have been the optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import keras
import numpy as np

from gatewatch.collector.arrays import Array
from gatewatch.collector.updates import parts, same_values, steady, tally

_BELOW: Final = 0.99
"""A gradient below this share of the limit was not clipped; nearer to it, rounding could hide that it was."""
_MOST_ROUNDING: Final = 0.01
"""A norm that is read from a mean of squares is given where rounding accounts for no more of it."""
READABLE: Final = {np.dtype(np.float32), np.dtype(np.float64)}


@dataclass(slots=True)
class Gradient:
    """The gradient of one variable in one step, as the optimizer used it.

    Attributes:
        values: shaped like the variable.
        exact: every value is known, and with it which are zero; where false only the norm is.
        whole: the optimizer is known not to have clipped it.
    """

    values: Array
    exact: bool
    whole: bool = False


_Reader = Callable[[Array, Array, float, float], Array | None]


class _Slot(NamedTuple):
    """One variable s of the state: s_t = decay·s_{t−1} + gain·g, or its like for g², and how g is read from it.

    A gain of None is minus the learning rate.
    """

    variable: Any
    read: _Reader
    decay: float
    gain: float | None


class OptimizerState:
    """A copy of what an optimizer holds before a step, to be compared with what it holds after it.

    Args:
        optimizer: a Keras optimizer; the one that a `LossScaleOptimizer` wraps is looked at.
        variables: the trainable variables whose gradients are wanted.

    Attributes:
        steps_before: how many steps the optimizer had made.
    """

    def __init__(self, optimizer: Any, variables: Iterable[Any]) -> None:
        self.optimizer = optimizer
        inner = self._inner = inner_of(optimizer)
        self.steps_before = steps_of(optimizer)
        self._slots: dict[int, tuple[_Slot, Array]] = {}
        self._was_built = bool(inner.built)
        if self._was_built:
            for variable in inner._trainable_variables if _global_limit(inner) else variables:
                index = index_of(inner, variable)
                if index is not None and (slot := _slot(inner, index)) is not None:
                    self._slots[index] = slot, numpy_of(slot.variable, copy=True)
        self.note_rate()

    def note_rate(self) -> None:
        """Read the learning rate again: it may have been changed since, and no step been made."""
        self._source = self._inner._learning_rate
        self._rate = number_of(self._source) if isinstance(self._source, keras.Variable) else None

    def steps(self) -> int:
        """Return how many steps the optimizer has made since; below zero where its count was set back."""
        return steps_of(self.optimizer) - self.steps_before

    def had_gradient(self, variable: Any) -> bool | None:
        """Return whether a step since has used a gradient for the variable; True where the optimizer keeps no state.

        None where the state was not made yet, or is still as it was made: a gradient of zero does not change it either.
        """
        if not self._was_built:
            return None
        index = index_of(self._inner, variable)
        if index not in self._slots:
            return True
        slot, before = self._slots[index]
        after = numpy_of(slot.variable)
        if after.shape != before.shape or not same_values(before, after):
            return True
        if slot.decay == 1 or not before.any():
            return None
        return not _untouched(before, after)

    def gradients(self, variables: Iterable[Any]) -> dict[int, Gradient]:
        """Return `id` of the variable → its gradient in the one step made since, where it can be read."""
        by_index: dict[int, Gradient] = {}
        needs_rate = any(slot.gain is None for slot, _ in self._slots.values())
        old_rate, new_rate = self._rates() if needs_rate else (None, None)
        rate = new_rate if old_rate == new_rate else None
        for index, (slot, before) in self._slots.items():
            after = numpy_of(slot.variable)
            gain = -(rate or 0.0) if slot.gain is None else slot.gain
            if gain == 0 or after.shape != before.shape or {after.dtype, before.dtype} - READABLE:
                continue
            values = slot.read(before.reshape(-1), after.reshape(-1), slot.decay, gain)
            if values is not None:
                by_index[index] = Gradient(values.reshape(before.shape), exact=slot.read is _from_mean)
        self._judge(by_index)
        indices = {id(variable): index_of(self._inner, variable) for variable in variables}
        return {key: by_index[index] for key, index in indices.items() if index in by_index}

    def rate(self) -> float | None:
        """Return the learning rate of the latest step, right to 1 %; None where it jumped meanwhile, or is not known.

        It is not where a class does more than Keras's own at a step: several optimizers in one have rates of their own.
        """
        plain = type(self._inner).apply is keras.optimizers.Optimizer.apply
        return steady(*self._rates()) if plain else None

    def _rates(self) -> tuple[float | None, float | None]:
        """Return the rate before and after the latest step. A user's function is not called: it may count its calls."""
        inner, source = self._inner, self._inner._learning_rate
        if source is not self._source:
            return None, None
        if isinstance(source, keras.optimizers.schedules.LearningRateSchedule):
            calls, each = number_of(inner._iterations), inner.gradient_accumulation_steps or 1
            latest = max(0, int(calls) // each * each - 1)
            rate = number_of(source(keras.ops.convert_to_tensor(latest, dtype=inner._iterations.dtype)))
            return rate, rate
        return self._rate, number_of(source) if isinstance(source, keras.Variable) else None

    def _judge(self, gradients: dict[int, Gradient]) -> None:
        """Say which gradients are known to be whole."""
        inner, limit = self._inner, _global_limit(self._inner)
        strategy = getattr(inner, "_distribution_strategy", None)
        if getattr(strategy, "num_replicas_in_sync", 1) > 1 and (inner.clipnorm or inner.clipvalue or limit):
            return  # each replica clips its own gradient, and the state has their sum
        complete = len(gradients) == len(inner._trainable_variables)
        below_limit = complete and math.hypot(*map(_norm, gradients.values())) < _BELOW * limit if limit else True
        for gradient in gradients.values():
            if inner.clipnorm and inner.clipnorm > 0:
                gradient.whole = _norm(gradient) < _BELOW * inner.clipnorm
            elif limit is None and inner.clipvalue and inner.clipvalue > 0:
                peak = float(np.abs(gradient.values).max(initial=0))
                gradient.whole = gradient.exact and peak < _BELOW * inner.clipvalue
            else:
                gradient.whole = below_limit


def is_of_another_model(optimizer: Any, variables: Collection[Any]) -> bool:
    """Return whether a Keras optimizer steps variables, and none of these."""
    inner = inner_of(optimizer)
    return bool(inner.built and variables and all(index_of(inner, variable) is None for variable in variables))


def steps_of(optimizer: Any) -> int:
    """Return how many steps a Keras optimizer has made."""
    return int(number_of(inner_of(optimizer).iterations))


def inner_of(optimizer: Any) -> Any:
    """Return the optimizer that a `LossScaleOptimizer` wraps; any other as it is."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def numpy_of(variable: Any, *, copy: bool = False) -> Array:
    """Return the values of a variable or a tensor; without a copy they may be its memory, good until the next step."""
    tensor = variable.value if isinstance(variable, keras.Variable) else variable
    values: Array
    # Keras's own way copies, and some versions twice: for large models that is half of what a look costs.
    if isinstance(tensor, np.ndarray):
        values = tensor
    elif keras.backend.backend() == "torch" and "bfloat16" not in str(tensor.dtype):
        values = tensor.detach().cpu().numpy()
    elif hasattr(tensor, "read_value"):
        values = np.asarray(tensor.read_value())
    else:
        values = np.asarray(keras.ops.convert_to_numpy(tensor))
    return values.copy() if copy and not values.flags.owndata else values


def _slot(optimizer: Any, index: int) -> _Slot | None:
    """Return where the gradient of a variable shows, by the rules of `keras/src/optimizers`; None where it does not."""
    if not is_known(optimizer):
        return None
    kind = type(optimizer).__name__
    if kind == "SGD" and not optimizer.momentum:
        return None
    if kind == "RMSprop" and optimizer.centered:
        kind = "centred RMSprop"
    if kind == "Muon" and optimizer.adam_velocities[index] is None:
        kind = "Muon without Adam"
    if kind not in _RULES:
        return None
    slots, decay_name, read, gain = _RULES[kind]
    variable = getattr(optimizer, slots)[index]
    decay = 1.0 if decay_name is None else getattr(optimizer, decay_name)
    return None if variable is None else _Slot(variable, read, decay, 1 - decay if gain == "rest" else gain)


def is_known(optimizer: Any) -> bool:
    """Return whether the class is one of Keras's own: another has a rule of its own, whatever it is called."""
    return type(optimizer).__module__.startswith("keras.")


def _from_mean(before: Array, after: Array, decay: float, gain: float) -> Array | None:
    """Return g from m_t = decay·m_{t−1} + gain·g.

    What the rounding of m hides is zero: a value less than about a millionth of the recent ones cannot be told from
    it. None where m was not finite before, or did not change, so that no step was made with it.
    """
    if not np.isfinite(before).all() or _untouched(before, after):
        return None
    limits = np.finfo(before.dtype)
    gradient = np.empty_like(after)
    with np.errstate(all="ignore"):
        for part in parts(before.size):
            old, g = before[part], gradient[part]
            np.multiply(old, decay, out=g)
            np.subtract(after[part], g, out=g)
            g[np.abs(g) <= np.abs(old) * (2 * limits.eps) + limits.tiny] = 0
            np.divide(g, gain, out=g)
    return gradient


def _from_squares(before: Array, after: Array, decay: float, gain: float) -> Array | None:
    """Return |g| from v_t = decay·v_{t−1} + gain·g²."""
    if not np.isfinite(before).all() or _untouched(before, after):
        return None
    with np.errstate(all="ignore"):
        squares = (after - decay * before.astype(np.float64)) / gain
        finite = np.isfinite(squares)
        hidden = float(before.sum(where=finite, dtype=np.float64)) * 2 * float(np.finfo(before.dtype).eps) / gain
        readable = hidden <= 2 * _MOST_ROUNDING * float(squares.sum(where=finite))
        return np.sqrt(np.maximum(squares, 0)) if readable else None


def _untouched(before: Array, after: Array) -> bool:
    """Return whether nothing changed where something must have: no step was made with these.

    A subnormal number may stay as it is: nine tenths of the smallest one are rounded to itself.
    """
    return same_values(before, after) and bool((np.abs(before) >= np.finfo(before.dtype).tiny).any())


def _norm(gradient: Gradient) -> float:
    """Return the norm of a gradient, infinite where not every value is finite."""
    counts = tally(gradient.values)
    return math.inf if counts.nan or counts.inf else counts.norm or 0.0


def _global_limit(optimizer: Any) -> float | None:
    limit: float | None = optimizer.global_clipnorm
    return limit if limit and limit > 0 and not optimizer.clipnorm else None


def index_of(optimizer: Any, variable: Any) -> int | None:
    """Return the place of a variable among those that an optimizer trains; None where it does not know it."""
    try:
        return int(optimizer._get_variable_index(variable))
    except KeyError:  # the optimizer does not know it
        return None


def number_of(value: Any) -> float:
    """Return the value of a variable or a tensor with one value."""
    return float(numpy_of(value))


_RULES: Final[Mapping[str, tuple[str, str | None, _Reader, float | Literal["rest"] | None]]] = {
    **dict.fromkeys(("Adam", "AdamW", "Nadam", "Lamb"), ("_momentums", "beta_1", _from_mean, "rest")),
    **dict.fromkeys(("Adagrad", "Ftrl"), ("_accumulators", None, _from_squares, 1.0)),
    "Adamax": ("_m", "beta_1", _from_mean, "rest"),
    "Muon": ("momentums", "adam_beta_1", _from_mean, "rest"),
    "Muon without Adam": ("momentums", "momentum", _from_mean, 1.0),
    "Lion": ("_momentums", "beta_2", _from_mean, "rest"),
    "SGD": ("momentums", "momentum", _from_mean, None),
    "RMSprop": ("_velocities", "rho", _from_squares, "rest"),
    "centred RMSprop": ("_average_gradients", "rho", _from_mean, "rest"),
    "Adadelta": ("_accumulated_grads", "rho", _from_squares, "rest"),
    "ScheduleFreeAdamW": ("_velocities", "beta_2", _from_squares, "rest"),
}
"""Optimizer → its state s_t = decay·s_{t−1} + gain·g, or g²: where it is, its decay (None: 1), reader and gain.

The gain "rest" is 1 − decay, None minus the learning rate.
"""
