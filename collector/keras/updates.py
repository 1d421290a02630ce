"""What a training step did to a Keras model's recurrent and dense parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import keras

from gatewatch.collector.arrays import Array
from gatewatch.collector.keras.layers import all_variables, walk
from gatewatch.collector.keras.optimizers import OptimizerState, numpy_of
from gatewatch.collector.schema import FieldValue
from gatewatch.collector.updates import Measured, Name, same_values, update_fields

_PARAMS: Final = {"kernel": "kernel", "recurrent": "recurrent_kernel", "bias": "bias"}
"""The tag `param` → the attribute of a Keras layer or cell."""


def parameters(model: Any) -> dict[Name, Any]:
    """Return (layer, param) → variable, for every trainable parameter of recurrent and dense layers.

    Layers have the names that the gates have; a cell in a stack that of its layer and its own, `rnn/lstm_cell`.
    """
    trainable = {id(variable) for variable in _trainable(model)}
    by_name: dict[Name, Any] = {}
    for path, layer in walk(model, into_recurrent=True):
        if isinstance(layer, keras.layers.Dense) or hasattr(layer, "recurrent_kernel"):
            for param, attribute in _PARAMS.items():
                variable: Any = getattr(layer, attribute, None)
                if id(variable) in trainable and keras.backend.is_float_dtype(variable.dtype):
                    by_name[path, param] = variable
    return by_name


def _trainable(model: Any) -> list[Any]:
    try:
        return list(model.trainable_variables)
    except Exception:  # of whoever wrote its class
        return [variable for variable in all_variables(model) if variable.trainable]


class KerasUpdates:
    """`Updates` of a Keras model, whose gradients are read from the optimizer's own state (`OptimizerState`).

    Args:
        model: a Keras model or layer.
        optimizer: that trains it; where None, the one that the model is compiled with, if any.
        unclipped: whether nothing but the optimizer clips gradients. What a loop of a user's own does to them before
            it calls the optimizer cannot be seen.

    Attributes:
        state: of the optimizer at `keep()`, where a step is waited for. Its `note_rate()` may be called as a step
            begins: the learning rate may have been changed since.
    """

    def __init__(self, model: Any, optimizer: Any = None, *, unclipped: bool = True) -> None:
        self._model = model
        self._given = optimizer
        self._unclipped = unclipped
        self._weights: dict[Name, tuple[Any, Array]] = {}
        self.state: OptimizerState | None = None

    def keep(self) -> None:
        """Copy the weights and what the optimizer holds for them."""
        by_name = parameters(self._model)
        self._weights = {name: (variable, numpy_of(variable, copy=True)) for name, variable in by_name.items()}
        optimizer = self._optimizer()
        is_keras = isinstance(optimizer, keras.optimizers.Optimizer)
        self.state = OptimizerState(optimizer, by_name.values()) if is_keras else None

    def rate(self) -> float | None:
        """Return the learning rate of the latest step since `keep()`, right to 1 %; None where there was none.

        Nor is there one where the rate jumped between `keep()` (or `state.note_rate()`) and now, or is a function's.
        """
        return self.state.rate() if self.state is not None and self._steps(self.state) > 0 else None

    def measure(self) -> Measured:
        """Return what the steps since `keep()` did: parameter → fields of its update.

        `optimizer_steps` is the number of steps, where the optimizer counted them. Gradients are known only after a
        single step that no other change of the weights accompanied. The result is empty if no step was made and no
        weight changed. A parameter that the model no longer has, or has in another shape, is left out.
        """
        weights, state = self._weights, self.state
        self.release()
        present = parameters(self._model)
        steps = self._steps(state)
        changes = {
            name: (variable, before, after)
            for name, (variable, before) in weights.items()
            if present.get(name) is variable and (after := numpy_of(variable)).shape == before.shape
        }
        if steps < 1 and not any(not same_values(before, after) for _, before, after in changes.values()):
            return {}
        gradients = state.gradients(v for v, _, _ in changes.values()) if state is not None and steps == 1 else {}
        updates: dict[Name, Mapping[str, FieldValue]] = {}
        for name, (variable, before, after) in changes.items():
            gradient = gradients.get(id(variable))
            fields = update_fields(before, after, clipped=None if gradient is None else gradient.values)
            if gradient is not None and gradient.whole and self._unclipped and "gradient_norm_clipped" in fields:
                fields["gradient_norm"] = fields["gradient_norm_clipped"]
            if gradient is not None and not gradient.exact:
                del fields["zero_count"]
            updates[name] = {**fields, "optimizer_steps": steps} if steps > 0 else fields
        return updates

    def release(self) -> None:
        """Forget the copies."""
        self._weights, self.state = {}, None

    def _steps(self, state: OptimizerState | None) -> int:
        return state.steps() if state is not None and state.optimizer is self._optimizer() else 0

    def _optimizer(self) -> Any:
        return getattr(self._model, "optimizer", None) if self._given is None else self._given
