"""The fixed batch of inputs that a model is looked at with."""

from __future__ import annotations

import re
from typing import Any, Final

import keras

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.text import one_line

_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")


def as_probe(probe: Any) -> Any:
    """The probe as tensors of its own, made once: what becomes of the arrays it was given does not matter.

    Raises:
        ConfigError: it is no batch, or an empty one.
    """
    try:
        tensors = keras.tree.map_structure(lambda part: keras.ops.copy(keras.ops.convert_to_tensor(part)), probe)
    except Exception as error:
        raise ConfigError(
            f"the probe is no batch of inputs: {first_line(error).rstrip('.')}; give an array, such as x[:32]"
        ) from error
    for tensor in keras.tree.flatten(tensors):
        if len(tensor.shape) == 0:
            raise ConfigError("the probe is no batch of inputs but single values; give an array, such as x[:32]")
        if tensor.shape[0] == 0:
            raise ConfigError(
                f"the probe of shape {tuple(tensor.shape)} holds no sequence; give a batch, such as x[:32]"
            )
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)) and not bool(
            keras.ops.all(keras.ops.isfinite(tensor))
        ):
            raise ConfigError("the probe holds values that are not finite; give a batch of sound inputs")
    return tensors


def shapes(batch: Any) -> str:
    """The shape of a batch, or of each of its parts, for a person to read."""
    parts = keras.tree.flatten(batch)
    return ", ".join(str(tuple(getattr(part, "shape", ()))) for part in parts) if batch is not None else "none"


def first_line(error: BaseException) -> str:
    """What an error says, on one line, without what Keras writes around it; its type where it says nothing."""
    try:
        text = str(error)
    except Exception:  # of whoever wrote its class
        return type(error).__name__
    lines = [one_line(_ESCAPE.sub("", part)) for part in text.splitlines()]
    telling = [text for text in lines if text and not text.startswith("Exception encountered when calling")]
    return telling[0] if telling else type(error).__name__
