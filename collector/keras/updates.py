"""What a training step did to a Keras model's recurrent and dense parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Final

import keras

from gatewatch.collector.arrays import Array
from gatewatch.collector.keras.layers import all_variables, fed_layer, walk
from gatewatch.collector.keras.moments import optimizer_facts, updates_of
from gatewatch.collector.keras.optimizers import (
    OptimizerState,
    index_of,
    inner_of,
    is_of_another_model,
    numpy_of,
    steps_of,
)
from gatewatch.collector.keras.step_log import StepLog
from gatewatch.collector.precision import RoundedBefore
from gatewatch.collector.schema import FieldValue
from gatewatch.collector.travel import NO_FACTS, Travels, travel_fields
from gatewatch.collector.updates import Measured, Name, input_shares, passed_over_fields, same_values, update_fields

_PARAMS: Final = {"kernel": "kernel", "recurrent": "recurrent_kernel", "bias": "bias"}
"""The tag `param` → the attribute of a Keras layer or cell."""
_RHYTHM: Final = 2
"""So many first steps of the optimizer are counted, to learn how often it steps."""
_FIRST_STEPS: Final = 3
"""Within so many steps a sound layer may have had no gradient but zero: the weights above it began as zeros."""


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

    The travel of a parameter needs one copy of it, of the capture before. How many steps were made since, and the sum
    of their learning rates, is known of the parameters that the optimizer trains, as far as a `StepLog` can tell.

    Args:
        model: a Keras model or layer.
        optimizer: that trains it; where None, the one that the model is compiled with, if any.
        unclipped: whether nothing but the optimizer clips gradients. What a loop of a user's own does to them before
            it calls the optimizer cannot be seen.
        warn_once: logs what cannot be recorded, once for each topic: text, topic.

    Attributes:
        state: of the optimizer at `keep()`, where a step is waited for.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any = None,
        *,
        unclipped: bool = True,
        warn_once: Callable[[str, str], None] = lambda text, topic: None,
    ) -> None:
        self._model = model
        self._given = optimizer
        self._unclipped = unclipped
        self._warn_once = warn_once
        self._weights: dict[Name, tuple[Any, Array]] = {}
        self._shares: Mapping[str, Array] = {}
        self.state: OptimizerState | None = None
        self._count: tuple[int, int] | None = None
        self._counted = 0
        self._used: set[str] = set()
        self._named: set[str] = set()
        self._log = StepLog()
        self._travels: Travels[int | None] = Travels()
        self._rounded = RoundedBefore()

    def watch(self) -> None:
        """Give up a look, if there is one: the optimizer counts its steps itself."""
        self._forget()
        self._rounded.begin((name, [numpy_of(variable)]) for name, variable in parameters(self._model).items())

    def stepped(self) -> Collection[int] | None:
        """Return whether the optimizer has made a step since the last call, as one number or none.

        That is known of the first two steps, and while a look goes on. At other times, or where there is no optimizer,
        it is None: reading the count would make a device wait after every batch.
        """
        optimizer = self._optimizer()
        self._log.note(optimizer if _is_keras(optimizer) else None)
        is_read = self.state is not None or self._counted < _RHYTHM
        before, self._count = self._count, _count(optimizer) if is_read else None
        if before is None or self._count is None or self._count[0] != before[0]:
            return None
        if self._count == before:
            return ()
        self._counted += 1
        return (0,)

    def keep(self) -> None:
        """Copy the weights and what the optimizer holds for them."""
        optimizer = self._optimizer()
        by_name = parameters(self._model)
        self._weights = {name: (variable, numpy_of(variable, copy=True)) for name, variable in by_name.items()}
        if _is_keras(optimizer) and is_of_another_model(optimizer, by_name.values()):
            self._warn_once(
                "the optimizer steps the variables of another model: no gradient is recorded; give GateMonitor the one"
                " that steps this model as optimizer=",
                "another model's optimizer",
            )
        self.state = OptimizerState(optimizer, by_name.values()) if _is_keras(optimizer) else None
        self._travels.keep_only(by_name.keys())
        self._count = _count(optimizer)

    def note_step(self) -> None:
        """Note what a step begins with, where one is looked at: a callback may have changed it since `keep()`."""
        if self.state is not None:
            self.state.note_rate()
            self._rounded.note((name, [numpy_of(variable)]) for name, (variable, _) in self._weights.items())

    def rate(self) -> float | None:
        """Return the learning rate of the latest step since `keep()`, right to 1 %; None where there was none.

        Nor is there one where the rate jumped between `keep()` (or `note_step()`) and now, or is a function's.
        """
        return self.state.rate() if self.state is not None and self._steps(self.state) > 0 else None

    def measure(self) -> Measured:
        """Return what the steps since `keep()` did: parameter → fields of its update.

        `optimizer_steps` is the number of steps, where the optimizer counted them. Gradients are known only after a
        single step that no other change of the weights accompanied. The result is empty if no step was made and no
        weight changed; then the copies are kept for a later call. A parameter that the model no longer has, or has in
        another shape, is left out, and so is a layer that has no gradient; if it had one before, that is recorded as no
        step.
        """
        weights, state = self._weights, self.state
        present = parameters(self._model)
        steps = self._steps(state)
        changes = {
            name: (variable, before, after)
            for name, (variable, before) in weights.items()
            if present.get(name) is variable and (after := numpy_of(variable)).shape == before.shape
        }
        if steps < 1 and not any(not same_values(before, after) for _, before, after in changes.values()):
            return {}
        self._forget()
        since = None if state is None or state.optimizer is not self._optimizer() else _Since(self._log, state)
        unused = self._unused(changes, state) if state is not None and steps > 0 else set()
        gradients = state.gradients(v for v, _, _ in changes.values()) if state is not None and steps == 1 else {}
        kernel = gradients.get(id(present.get((fed_layer(self._model) or "", "kernel")))) if gradients else None
        shares = input_shares(kernel.values.T) if kernel is not None else None
        self._shares = {} if shares is None else {"": shares}
        updates: dict[Name, Mapping[str, FieldValue]] = {}
        for name, (variable, before, after) in changes.items():
            if name[0] in unused:
                if name[0] in self._used:
                    updates[name] = {**passed_over_fields(after), **self._travel(name, variable, after, since)}
                continue
            gradient = gradients.get(id(variable))
            fields = update_fields(before, after, clipped=None if gradient is None else gradient.values)
            if gradient is not None and gradient.whole and self._unclipped and "gradient_norm_clipped" in fields:
                fields["gradient_norm"] = fields["gradient_norm_clipped"]
            if gradient is not None and not gradient.exact:
                del fields["zero_count"]
            if steps > 0:
                fields["optimizer_steps"] = steps
            updates[name] = {**self._rounded.added(name, fields), **self._travel(name, variable, after, since)}
        return updates

    def kernel_shares(self) -> Mapping[str, Array]:
        """Return '' → the shares of the inputs in the kernel's gradient, of the layer that is given all feed as it is.

        They are of the latest `measure()`; there are none where the gradient or the layer is not known.
        """
        return self._shares

    def recorded(self, names: Collection[Name]) -> None:
        """Count the travel of these parameters from what was measured last of them."""
        self._travels.recorded(names)
        self._rounded.recorded(names)
        latest = [one[1] for name in names if (one := self._travels.latest(name)) is not None]
        self._log.restart(min((reading for reading in latest if reading is not None), default=0))

    def release(self) -> None:
        """Forget the copies."""
        self._forget()
        self._log, self._travels, self._rounded = StepLog(), Travels(), RoundedBefore()

    def _forget(self) -> None:
        """End the look at a step."""
        self._weights, self.state = {}, None

    def _travel(self, name: Name, variable: Any, after: Array, since: _Since | None) -> dict[str, FieldValue]:
        """Return what happened to a parameter since its latest record, and hold what it is now.

        Args:
            name: of the parameter.
            variable: it.
            after: its values.
            since: the steps of the optimizer; None where there is none.
        """
        before, earlier = self._travels.latest(name) or (None, None)
        self._travels.measured(name, [after.copy()], None if since is None else since.reading)
        if since is None or index_of(inner_of(since.optimizer), variable) is None:
            return travel_fields(before, after)
        steps, rate_sum = since.steps(earlier)
        facts = NO_FACTS
        with suppress(Exception):  # of a state that somebody has exchanged
            if since.is_one_optimizer(earlier):
                facts = optimizer_facts(since.optimizer, variable, since.updates)
        return travel_fields(before, after, steps=steps, rate_sum=rate_sum, facts=facts)

    def _unused(self, changes: Mapping[Name, tuple[Any, Array, Array]], state: OptimizerState) -> set[str]:
        """Return the layers that have no gradient: neither their weights nor what the optimizer holds has changed.

        A layer whose gradient has been zero in every step of the run looks the same, and is taken for one.
        """
        is_young = state.steps_before < _FIRST_STEPS
        still: set[str] = set()
        others: set[str] = set()
        for (layer, _), (variable, before, after) in changes.items():
            had_gradient = state.had_gradient(variable) if same_values(before, after) else True
            if had_gradient:
                self._used.add(layer)
            is_still = had_gradient is False or (had_gradient is None and not is_young and layer not in self._used)
            (still if is_still else others).add(layer)
        unused = still - others
        if layers := sorted(unused - self._named):
            self._named.update(layers)
            self._warn_once(
                f"no gradient has reached {', '.join(map(repr, layers))}: no update is recorded while that is so; "
                "a layer that the loss depends on has a gradient, unless it is always zero",
                f"no gradient: {layers}",
            )
        return unused

    def _steps(self, state: OptimizerState | None) -> int:
        return state.steps() if state is not None and state.optimizer is self._optimizer() else 0

    def _optimizer(self) -> Any:
        """Return the optimizer. On JAX `fit` keeps all values elsewhere: they are brought back, as for any callback."""
        if (sync := getattr(self._model, "jax_state_sync", None)) is not None:
            sync()
        return getattr(self._model, "optimizer", None) if self._given is None else self._given


class _Since:
    """The steps that an optimizer has made until now.

    Args:
        log: of its steps.
        state: of the optimizer, which a step has changed.

    Attributes:
        optimizer: itself.
        reading: the number of the log's latest reading.
        updates: how many times it has updated its variables, since it began.
    """

    def __init__(self, log: StepLog, state: OptimizerState) -> None:
        self._log, self._is_rated = log, False
        with suppress(Exception):  # of a schedule of the user's own
            self._is_rated = state.rate() is not None
        self.optimizer = state.optimizer
        self.reading = log.read(state.optimizer)
        self.updates = updates_of(state.optimizer)
        self._steps: dict[int, tuple[int | None, float | None]] = {}

    def steps(self, earlier: int | None) -> tuple[int | None, float | None]:
        """Return how many steps were made since an earlier reading, and the sum of their rates; None if not known."""
        if earlier is None:
            return None, None
        if earlier not in self._steps:  # a schedule's rates are added up once, not for each parameter
            self._steps[earlier] = self._log.between(earlier, self.reading)
        steps, rate_sum = self._steps[earlier]
        return steps, rate_sum if self._is_rated else None

    def is_one_optimizer(self, earlier: int | None) -> bool:
        """Return whether the optimizer was this one at every reading since an earlier one."""
        return earlier is None or self._log.is_one_optimizer(earlier, self.reading)


def _count(optimizer: Any) -> tuple[int, int] | None:
    """Return which optimizer this is, and how many steps it has made; None where it is not one of Keras."""
    return (id(optimizer), steps_of(optimizer)) if _is_keras(optimizer) else None


def _is_keras(optimizer: Any) -> bool:
    return isinstance(optimizer, keras.optimizers.Optimizer)
