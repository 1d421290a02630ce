"""Call a Keras model so that nothing is left of the call: no value, no random number drawn, no attribute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

import keras
from keras.src.backend.common import global_state
from keras.src.random import seed_generator
from keras.src.utils.tracking import Tracker

from gatewatch.collector.keras.layers import name_of
from gatewatch.collector.runtime.object_state import Kinds, ObjectState, Place
from gatewatch.collector.runtime.random_state import RandomOfLooks

_BACKENDS: Final = ("tensorflow", "torch")
_SEEDS: Final = RandomOfLooks(vars(seed_generator), "python_random")
"""What Keras draws from `random`: a seed for each layer and initializer that is made without one."""


@contextmanager
def isolated(
    model: Any,
    left_out: dict[str, str] | None = None,
    method: str | None = None,
    also: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[None]:
    """While open, let calls of a model in this thread leave nothing behind, and record no gradients.

    - What is assigned to Keras's variables, wherever they are, is seen inside and then forgotten: `StatelessScope`.
    - Compiled functions run uncompiled: one that was compiled inside would be kept, without its assignments.
    - What the call can reach and change of Python's objects is restored, generators of random numbers too, if its code
      names them: `ObjectState`. What Keras and TensorFlow draw themselves, they draw beside the training.

    Args:
        model: a Keras model or layer.
        left_out: takes what is not restored → why.
        method: of the model, that is called in its place.
        also: name → what else is called, such as a loss.

    Raises:
        NotIsolatedError: from a call inside that uses what can neither be copied nor restored, such as a generator.
    """
    backend = _backend()
    with ExitStack() as stack:
        stack.enter_context(_SEEDS.looking())
        if backend is not None:
            stack.enter_context(backend.isolated())
        roots = {**also, name_of(model): model, "keras": vars(global_state.GLOBAL_STATE_TRACKER)}
        named = {} if backend is None else backend.shared()
        state = ObjectState(roots, _kinds(), {method or "call"}, named=named)
        stack.callback(state.restore)
        if left_out is not None:
            left_out.update(state.left_out)
        stack.enter_context(keras.StatelessScope())
        yield


@cache
def _backend() -> Any:
    """Return the module for what the backend keeps itself; None for one that keeps nothing."""
    name = keras.backend.backend()
    return import_module(f"gatewatch.collector.keras.on_{name}") if name in _BACKENDS else None


@cache
def _kinds() -> Kinds:
    backend = _backend()
    own, classes = ({}, ()) if backend is None else (backend.KINDS, backend.CLASSES)
    return Kinds({keras.Variable: _follow_variable, **own}, (keras.layers.Layer, Tracker, *classes), {"stop_training"})


def _follow_variable(state: ObjectState, variable: Any, place: Place) -> None:
    """Save the tensor below, which code may change past Keras; what is assigned to the variable needs nothing."""
    state.follow(variable._value, place)
