"""The inputs of a Keras model: a probe, its values and shapes, and whether they are why a call of it has failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import keras
import numpy as np

from gatewatch.collector.arrays import Array
from gatewatch.collector.checks import Shape, check_values, explain_mismatch, frames, wrong_arguments, wrong_shape
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.keras.layers import name_of, recurrent_layers
from gatewatch.collector.runtime.code_names import is_users
from gatewatch.collector.text import first_line, safe_repr


def check_method(model: Any, method: Any) -> None:
    """Check that a model has a method, one that is not Keras's own.

    Raises:
        ConfigError: it has not, or has it from Keras.
    """
    owner = next((kind for kind in type(model).__mro__ if isinstance(method, str) and method in vars(kind)), None)
    if not isinstance(method, str) or not callable(getattr(model, method, None)):
        raise ConfigError(f"method={safe_repr(method)}: the model {type(model).__name__} has no such method")
    if owner is not None and not is_users(owner) and method not in vars(model):
        raise ConfigError(
            f"method={safe_repr(method)}: that is a method of Keras's; without method= the model itself is called, and "
            "method= names one of your own class"
        )


def as_arguments(given: Any) -> tuple[Any, ...]:
    """Return the arguments of a method, with arrays and tensors of our own; a list or tuple is several of them."""
    return tuple(keras.tree.map_structure(_copied, part) for part in _several(given))


def _several(given: Any) -> Sequence[Any]:
    return given if type(given) in (tuple, list) else (given,)


def _copied(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        return part.copy()
    return keras.ops.copy(part) if keras.ops.is_tensor(part) else part


def as_probe(probe: Any, method: str | None = None) -> Any:
    """Return the probe as tensors of its own, made once: what becomes of the arrays it was given does not matter.

    For a method it is a tuple of arguments, as `as_arguments` makes them.

    Raises:
        ConfigError: it is no batch, or an empty one.
    """
    if method is not None:
        arguments = as_arguments(probe)
        check_values(arrays(arguments))
        return arguments
    try:
        tensors = keras.tree.map_structure(lambda part: keras.ops.copy(keras.ops.convert_to_tensor(part)), probe)
    except Exception as error:
        raise ConfigError(
            f"the probe is no batch of inputs: {first_line(error).rstrip('.')}; give an array, such as x[:32]"
        ) from error
    values = arrays(tensors)
    if not all(array.ndim for array in values):
        raise ConfigError("the probe is no batch of inputs but single values; give an array, such as x[:32]")
    check_values(values)
    return tensors


def arrays(batch: Any) -> list[Array]:
    """Return the values of every part of a batch that has some; nothing for no batch."""
    return [array for part in keras.tree.flatten(batch) if (array := as_array(part)) is not None]


def as_array(part: Any) -> Array | None:
    """Return the values of a part of a batch; None where it has none."""
    return keras.ops.convert_to_numpy(part) if hasattr(part, "shape") else None


def shapes(batch: Any) -> str:
    """Return the shape of a batch, or of each of its parts, for a person to read."""
    parts = keras.tree.flatten(batch)
    return ", ".join(str(tuple(getattr(part, "shape", ()))) for part in parts) if batch is not None else "none"


def input_mismatch_error(
    what: str, x: Any, model: Any, error: Exception, method: str | None = None
) -> ConfigError | None:
    """Return the error that says why a model does not take a batch; None where its call failed for another reason.

    Args:
        what: what the batch is, for the message: probe, or batch.
        x: what the model was called with.
        model: the model.
        error: what the call has raised, inside `whole_tracebacks`.
        method: of the model, that was called; None where the model itself was.
    """
    expected = _declared(model) if method is None else None
    if expected is not None:
        if _fits(x, expected):
            return None
        wanted = ", ".join(str(shape) for shape in expected.values())
        return ConfigError(f"the {what} of shape {shapes(x)} does not fit the model's input {wanted}")
    reason = None if method is None else wrong_arguments(model, method, _several(x))
    reason = reason or _reason_of_layer(x, model, error)
    if reason is None:
        return None
    return ConfigError(f"the {what} of shape {shapes(x)} does not fit the model {name_of(model)!r}: {reason}")


def was_called(model: Any, method: str | None = None) -> bool:
    """Return whether a model is built; where a method is called in its place, whether its recurrent layers are."""
    if method is not None:
        return all(layer.built for layer in recurrent_layers(model).values())
    try:
        return bool(model.built) and getattr(model, "inputs", True) is not None
    except Exception:  # of whoever wrote its class
        return bool(model.built)


def call(model: Any, x: Any, method: str | None = None) -> Any:
    """Call a model in inference mode, or a method of it with copies of these arguments."""
    return model(x, training=False) if method is None else getattr(model, method)(*as_arguments(x))


def call_once(model: Any, x: Any, what: str = "batch", method: str | None = None) -> None:
    """Build a model that was never called.

    Args:
        model: the model.
        x: what it is called with.
        what: what that is, for the message.
        method: that is called in its place.

    Raises:
        ConfigError: it does not take the batch.
        Exception: whatever else the call raises.
    """
    with explain_mismatch(partial(input_mismatch_error, what, x, model, method=method)), whole_tracebacks():
        if not was_called(model, method):
            call(model, x, method)


@contextmanager
def whole_tracebacks() -> Iterator[None]:
    """While open, let Keras pass on in this thread what a layer raises as it is, every frame of it."""
    if not keras.config.is_traceback_filtering_enabled():
        yield
        return
    keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        keras.config.enable_traceback_filtering()


def _declared(model: Any) -> dict[str, Shape] | None:
    """Return name → shape of the inputs of a model that is a graph of layers; None of another."""
    try:
        return {tensor.name: tuple(tensor.shape) for tensor in model.inputs}
    except Exception:  # a subclassed model has none, or its class raises
        return None


def _fits(x: Any, expected: Mapping[str, Shape]) -> bool:
    parts = list(x.values()) if isinstance(x, Mapping) else keras.tree.flatten(x)
    if isinstance(x, Mapping) and expected.keys() <= x.keys():
        parts = [x[name] for name in expected]
    given = [tuple(getattr(part, "shape", ())) for part in parts]
    return len(given) == len(expected) and all(map(_is_of, given, expected.values()))


def _is_of(given: Shape, expected: Shape) -> bool:
    """Return whether a model takes a shape. Keras adds a last dimension of one itself, and takes it away."""
    if len(given) == len(expected) - 1 and expected[-1] == 1:
        given = (*given, 1)
    elif len(given) == len(expected) + 1 and given[-1] == 1:
        given = given[:-1]
    return len(given) == len(expected) and all(
        size is None or size == own for own, size in zip(given, expected, strict=True)
    )


def _reason_of_layer(x: Any, model: Any, error: Exception) -> str | None:
    """Return what the recurrent or dense layer that raised the error declares, and its input is not."""
    for frame in frames(error):
        layer = frame.f_locals.get("self")
        if frame.f_code.co_name == "__call__" and isinstance(layer, keras.layers.Layer):
            break
    else:
        return None
    arguments = frame.f_locals.get("args") or ()
    got = getattr(arguments[0], "shape", None) if arguments else None
    recurrent = isinstance(layer, keras.layers.RNN)
    if got is None or not (recurrent or isinstance(layer, keras.layers.Dense) or hasattr(layer, "recurrent_kernel")):
        return None
    kernel = getattr(layer.cell if recurrent else layer, "kernel", None)
    ranks = (3,) if recurrent else range(2, 100) if isinstance(layer, keras.layers.Dense) else (2,)
    produced: set[int] = set()
    for one in model._flatten_layers():
        if one is layer or (recurrent and one is layer.cell):
            break
        size = getattr(one, "units", None) or getattr(one, "output_dim", None)
        produced |= {size, 2 * size} if isinstance(size, int) else set()
    inputs = [tuple(getattr(part, "shape", ())) for part in keras.tree.flatten(x)]
    reason = wrong_shape(tuple(got), ranks, None if kernel is None else kernel.shape[0], inputs, produced)
    return None if reason is None else f"its layer {name_of(layer)!r} {reason}"
