"""How many steps a Keras optimizer has made since a record, and the sum of the learning rates of these steps.

The optimizer counts its steps. Its learning rate is a schedule of that count, or a variable that a callback may set. To
read either after each batch would cost TensorFlow more than all else that a batch without a capture costs, and make a
GPU wait. So both are read at a few moments only, after 1, 2, 3, 5, 8, 13, … batches since the latest record, and looked
at when the next one is made: a count that went back is then known for one, and a rate that changed too.
"""

from __future__ import annotations

import math
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final, NamedTuple

import keras
import numpy as np

from gatewatch.collector.arrays import Array
from gatewatch.collector.keras.optimizers import inner_of, number_of

_MOST_STEPS: Final = 100_000
"""The rates of no more steps are added up: a schedule is called with all of them at once."""
_MOST_CALLS: Final = 16
"""A schedule that takes one step at a time is called for no more."""


class Reading(NamedTuple):
    """An optimizer at one moment.

    Attributes:
        optimizer: itself, or the one that a `LossScaleOptimizer` wraps.
        source: its learning rate: a schedule, a variable or a function.
        calls: how often it was given gradients, as a tensor.
        rate: the value of a variable, as a tensor; None where the source is none.
    """

    optimizer: Any
    source: Any
    calls: Any
    rate: Any


class StepLog:
    """Readings of an optimizer, the oldest first."""

    def __init__(self) -> None:
        self._readings: list[Reading] = []
        self._dropped = 0
        self._batches, self._next, self._gap = 0, 1, 1

    def note(self, optimizer: Any) -> None:
        """Read the optimizer after a batch, if it is time to. Nothing waits for what a device has not computed yet."""
        self._batches += 1
        if self._batches >= self._next and optimizer is not None:
            self._next, self._gap = self._next + self._gap, self._next
            self.read(optimizer)

    def read(self, optimizer: Any) -> int:
        """Read the optimizer now; return the number of this reading."""
        inner = inner_of(optimizer)
        source = inner._learning_rate
        rate = _tensor_of(source) if isinstance(source, keras.Variable) else None
        self._readings.append(Reading(inner, source, _tensor_of(inner._iterations), rate))
        return self._dropped + len(self._readings) - 1

    def restart(self, reading: int) -> None:
        """Forget what was read before a reading, and read often again."""
        self._readings = self._readings[max(0, reading - self._dropped) :]
        self._dropped = max(self._dropped, reading)
        self._batches, self._next, self._gap = 0, 1, 1

    def between(self, earlier: int, now: int) -> tuple[int | None, float | None]:
        """Return how many steps were made from one reading to another, and the sum of their learning rates.

        The rate of a schedule is that of each step. A variable's is known where it was the same each time it was read:
        one that a callback changed and set back between two readings is not seen. A user's function is not called.

        Both are None where it is not known: the optimizer or its learning rate is another one, its count went back, or
        the earlier reading was forgotten.
        """
        if earlier < self._dropped:
            return None, None
        readings = self._readings[earlier - self._dropped : now - self._dropped + 1]
        first, last = readings[0], readings[-1]
        if any(one.optimizer is not first.optimizer for one in readings):
            return None, None
        each = first.optimizer.gradient_accumulation_steps or 1
        counts = [int(number_of(one.calls)) // each for one in readings]
        if any(later < before for before, later in pairwise(counts)):
            return None, None
        steps = counts[-1] - counts[0]
        if any(one.source is not first.source for one in readings):
            return steps, None
        if first.rate is not None:
            rates = {number_of(one.rate) for one in readings}
            return steps, steps * rates.pop() if len(rates) == 1 else None
        if isinstance(first.source, keras.optimizers.schedules.LearningRateSchedule):
            calls = np.arange(counts[0] + 1, counts[-1] + 1) * each - 1
            return steps, _scheduled(first.source, calls, last.optimizer._iterations.dtype)
        return steps, None

    def is_one_optimizer(self, earlier: int, now: int) -> bool:
        """Return whether the optimizer was the same at all readings from one to another."""
        readings = self._readings[max(0, earlier - self._dropped) : now - self._dropped + 1]
        return len({id(one.optimizer) for one in readings}) == 1


def _scheduled(schedule: Any, calls: Array, dtype: str) -> float | None:
    """Return the sum of a schedule's rates at some counts of calls; None where they are too many, or one fails."""

    def rates(at: Any) -> Array:
        return np.asarray(keras.ops.convert_to_numpy(schedule(keras.ops.convert_to_tensor(at, dtype=dtype))))

    if not 0 < calls.size <= _MOST_STEPS:
        return None if calls.size else 0.0
    values = None
    with suppress(Exception):  # CosineDecay with a warm-up, for example, takes one step at a time
        all_at_once, ends = rates(calls), [float(rates(call)) for call in calls[[0, -1]]]
        if all_at_once.shape == calls.shape and np.allclose(all_at_once[[0, -1]], ends, rtol=1e-6, atol=0):
            values = all_at_once
    if values is None and calls.size <= _MOST_CALLS:
        with suppress(Exception):  # of whoever wrote it
            values = np.array([float(rates(call)) for call in calls])
    total = math.nan if values is None else float(values.sum(dtype=np.float64))
    return total if math.isfinite(total) else None


def _tensor_of(variable: Any) -> Any:
    """Return the value that a variable has now, as a tensor that nothing changes; no device is waited for."""
    value = variable.value
    if hasattr(value, "read_value"):
        return value.read_value()
    if hasattr(value, "detach"):
        return value.detach().clone()
    return keras.ops.copy(value)  # JAX deletes the value itself at the next step
