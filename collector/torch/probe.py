"""What a module is looked at with."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.mismatch import check_values
from gatewatch.collector.text import first_line
from gatewatch.collector.torch.members import as_array


def as_probe(probe: Any) -> tuple[Any, ...]:
    """The probe as a module's inputs, as `as_inputs` makes them, and with sound values.

    Raises:
        ConfigError: it is no batch, an empty one, or holds values that are not finite.
    """
    try:
        inputs = as_inputs(probe)
        values = arrays(inputs)
    except Exception as error:
        raise ConfigError(f"the probe is no batch of inputs: {first_line(error)}") from error
    check_values(values)
    return inputs


def as_inputs(inputs: Any) -> tuple[Any, ...]:
    """The inputs of a module, with tensors of our own: what becomes of the given ones does not matter.

    Tensors and arrays are copied, in tuples, lists and mappings too, and arrays become tensors. Whatever else there is
    stays as it is.
    """
    parts = inputs if type(inputs) in (tuple, list) else (inputs,)
    return tuple(_copy(part) for part in parts)


def arrays(inputs: Any) -> list[NDArray[Any]]:
    """The values of every tensor in a nest, in its order."""
    return [as_array(tensor) for tensor in tensors(inputs)]


def tensors(inputs: Any) -> Iterator[Tensor]:
    """Yield every tensor of a nest, in its order."""
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping | tuple | list):  # a PackedSequence too
        for part in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from tensors(part)


def shapes(inputs: Any) -> str:
    """The shape of each input, for a person to read."""
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if type(inputs) in (tuple, list):  # not a PackedSequence, which is a tuple too
        return ", ".join(shapes(one) for one in inputs) or "none"
    return str(tuple(inputs.shape)) if hasattr(inputs, "shape") else type(inputs).__name__


def _copy(part: Any) -> Any:
    if isinstance(part, Tensor):
        return part.detach().clone()
    if isinstance(part, np.ndarray):
        return torch.tensor(part)
    if isinstance(part, Mapping):
        copies = {key: _copy(one) for key, one in part.items()}
        if not isinstance(part, MutableMapping):
            return copies
        mapping = copy.copy(part)  # of its own type
        mapping.update(copies)
        return mapping
    if type(part) in (tuple, list):  # a state (h, c)
        return type(part)(_copy(one) for one in part)
    if isinstance(part, tuple) and hasattr(part, "_fields"):  # a PackedSequence, for one
        return type(part)(*(_copy(one) for one in part))
    return part
