"""What a module is looked at with, and what to say where it does not take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from collector.errors import ConfigError


def shapes(inputs: Any) -> str:
    """The shape of each input, for a person to read."""
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if type(inputs) in (tuple, list):  # not a PackedSequence, which is a tuple too
        return ", ".join(shapes(one) for one in inputs) or "none"
    return str(tuple(inputs.shape)) if hasattr(inputs, "shape") else type(inputs).__name__


def misfit(what: str, inputs: tuple[Any, ...], module: nn.Module, error: Exception) -> ConfigError:
    """The error that says that a module does not take its inputs, in the module's words."""
    remedy = "" if any(isinstance(one, Tensor) for one in inputs) else "; give tensors, as the module takes them"
    name = type(module).__name__
    return ConfigError(
        f"the {what} of shape {shapes(inputs)} does not fit the module {name}: {first_line(error)}{remedy}"
    )


def first_line(error: BaseException) -> str:
    """What an error says, on one line; its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
