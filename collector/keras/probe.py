"""The fixed batch of inputs that a model is looked at with."""

from __future__ import annotations

import re
from typing import Any, Final

import keras

from collector.errors import ConfigError

_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")


def as_probe(probe: Any) -> Any:
    """The probe as tensors, made once.

    Raises:
        ConfigError: it is no batch, or an empty one.
    """
    try:
        tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, probe)
    except Exception as error:
        raise ConfigError(f"the probe is no batch of inputs: {first_line(error)}") from error
    for tensor in keras.tree.flatten(tensors):
        if len(tensor.shape) == 0:
            raise ConfigError("the probe is no batch of inputs: it holds single values; give a batch, such as x[:32]")
        if tensor.shape[0] == 0:
            raise ConfigError(
                f"the probe of shape {tuple(tensor.shape)} holds no sequence; give a batch, such as x[:32]"
            )
    return tensors


def shapes(batch: Any) -> str:
    """The shape of a batch, or of each of its parts, for a person to read."""
    return ", ".join(str(tuple(part.shape)) for part in keras.tree.flatten(batch)) if batch is not None else "none"


def call_once(model: Any, x: Any) -> None:
    """Build a model that was never called.

    Raises:
        ConfigError: it does not take the batch.
    """
    if model.built and getattr(model, "inputs", True) is not None:
        return
    try:
        model(x, training=False)
    except Exception as error:
        raise ConfigError(f"the model {model.name!r} cannot be called on the batch: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, on one line, without what Keras writes around it; its type where it says nothing."""
    lines = [_ESCAPE.sub("", line).strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    return telling[0] if telling else type(error).__name__
