"""The fixed batch of inputs that a model is looked at with."""

from __future__ import annotations

from typing import Any

import keras

from gatewatch.collector.arrays import Array
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.mismatch import check_values
from gatewatch.collector.text import first_line


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
    values = arrays(tensors)
    if not all(array.ndim for array in values):
        raise ConfigError("the probe is no batch of inputs but single values; give an array, such as x[:32]")
    check_values(values)
    return tensors


def arrays(batch: Any) -> list[Array]:
    """Return the values of every part of a batch; nothing for no batch."""
    return [] if batch is None else [keras.ops.convert_to_numpy(part) for part in keras.tree.flatten(batch)]


def shapes(batch: Any) -> str:
    """The shape of a batch, or of each of its parts, for a person to read."""
    parts = keras.tree.flatten(batch)
    return ", ".join(str(tuple(getattr(part, "shape", ()))) for part in parts) if batch is not None else "none"
