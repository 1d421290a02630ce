"""The inputs of a torch module: a probe, its values and shapes, and whether they are why a call of it has failed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gatewatch.collector.checks import check_values, frames, wrong_arguments, wrong_shape
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.text import first_line
from gatewatch.collector.torch.layers import as_array, cell_of, layer_name, parameters, walk

_DECLARING = (nn.RNNBase, nn.RNNCellBase, nn.Linear)


def as_probe(probe: Any, method: str | None = None) -> tuple[Any, ...]:
    """Return the probe as a module's inputs, as `as_inputs` makes them, and with sound values.

    Raises:
        ConfigError: it is no batch, an empty one, or holds values that are not finite.
    """
    if method is None and (kind := _no_batch(probe)):
        raise ConfigError(f"the probe is no batch of inputs but {kind}; give a tensor or an array, such as x[:32]")
    try:
        inputs = as_inputs(probe, method)
        values = arrays(inputs)
    except Exception as error:
        raise ConfigError(f"the probe is no batch of inputs: {first_line(error)}") from error
    check_values(values)
    return inputs


def _no_batch(probe: Any) -> str | None:
    """Return what a probe is that surely is no batch; None for every other, since modules take what they like."""
    if isinstance(probe, Iterator) or (hasattr(probe, "__iter__") and hasattr(probe, "batch_size")):
        return "a source of batches"
    if type(probe).__module__.partition(".")[0] in ("pandas", "polars"):
        return f"a {type(probe).__name__}"
    return "numbers or text" if _is_plain(probe) else None


def _is_plain(value: Any) -> bool:
    return isinstance(value, int | float | str | bytes) or (
        type(value) in (tuple, list) and bool(value) and all(map(_is_plain, value))
    )


def as_inputs(inputs: Any, method: str | None = None) -> tuple[Any, ...]:
    """Return the inputs of a module, with tensors of our own: what becomes of the given ones does not matter.

    Tensors and arrays are copied, in tuples, lists and mappings too, and arrays become tensors, but for a method, which
    may take either. Whatever else there is stays as it is.
    """
    parts = inputs if type(inputs) in (tuple, list) else (inputs,)
    return tuple(_copy(part, torch.tensor if method is None else np.copy) for part in parts)


def as_targets(targets: Any, method: str | None = None, device: torch.device | None = None) -> Any:
    """Return the targets of a probe as a loss takes them, nested as they are given, with tensors of our own.

    Args:
        targets: a tensor or an array, or nested tuples, lists and mappings of such.
        method: that is called in the module's place: then arrays stay arrays.
        device: where the tensors are to be; None for where they are.

    Raises:
        ConfigError: they surely are no targets.
    """
    if kind := _no_batch(targets):
        raise ConfigError(f"probe_targets are {kind}; give a tensor or an array, such as y[:32]")
    return _copy(targets, torch.tensor if method is None else np.copy, device)


def arrays(inputs: Any) -> list[NDArray[Any]]:
    """Return the values of every tensor or array in a nest, in its order."""
    return [as_array(leaf) for leaf in _leaves(inputs)]


def array_of(part: Any) -> NDArray[Any] | None:
    """Return the values of a tensor or an array; None of anything else."""
    return as_array(part) if isinstance(part, Tensor | np.ndarray) else None


def tensors(inputs: Any) -> Iterator[Tensor]:
    """Yield every tensor of a nest, in its order."""
    return (leaf for leaf in _leaves(inputs) if isinstance(leaf, Tensor))


def _leaves(inputs: Any) -> Iterator[Any]:
    if isinstance(inputs, Tensor | np.ndarray):
        yield inputs
    elif isinstance(inputs, Mapping | tuple | list):  # a PackedSequence too
        for part in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from _leaves(part)


def shapes(inputs: Any) -> str:
    """Return the shape of each input, for a person to read."""
    if isinstance(inputs, Mapping):
        inputs = tuple(inputs.values())
    if type(inputs) in (tuple, list):  # not a PackedSequence, which is a tuple too
        return ", ".join(shapes(one) for one in inputs) or "none"
    return str(tuple(inputs.shape)) if hasattr(inputs, "shape") else type(inputs).__name__


def input_mismatch_error(
    what: str, inputs: tuple[Any, ...], module: nn.Module, error: Exception, method: str | None = None
) -> ConfigError | None:
    """Return the error that says why a module does not take its inputs; None where its call failed otherwise.

    Args:
        what: what the inputs are, for the message: probe, or input.
        inputs: what the module was called with.
        module: the module.
        error: what the call has raised.
        method: of the module, that was called; None where the module itself was.
    """
    if reason := _reason(inputs, module, error, method):
        name = type(module).__name__
        return ConfigError(f"the {what} of shape {shapes(inputs)} does not fit the module {name}: {reason}")
    return None


def _copy(part: Any, of_array: Callable[[Any], Any], device: torch.device | None = None) -> Any:
    if isinstance(part, Tensor):
        return part.detach().clone() if device is None else part.detach().to(device, copy=True)
    if isinstance(part, np.ndarray):
        return of_array(part)
    if isinstance(part, Mapping):
        copies = {key: _copy(one, of_array, device) for key, one in part.items()}
        if not isinstance(part, MutableMapping):
            return copies
        mapping = copy.copy(part)  # of its own type
        mapping.update(copies)
        return mapping
    if type(part) in (tuple, list):  # a state (h, c)
        return type(part)(_copy(one, of_array, device) for one in part)
    if isinstance(part, tuple) and hasattr(part, "_fields"):  # a PackedSequence, for one
        return type(part)(*(_copy(one, of_array, device) for one in part))
    return part


def _reason(inputs: tuple[Any, ...], module: nn.Module, error: Exception, method: str | None) -> str | None:
    given = list(tensors(inputs))
    if method is None and getattr(module.forward, "__func__", None) is nn.Module.forward:
        return "it has no forward; method= of GateMonitor names what is called instead"
    if method is None and not given and any(isinstance(one, np.ndarray) for one in inputs):
        return "it is an array; give tensors, as the module takes them"
    if reason := wrong_arguments(module, method or "forward", inputs):
        return reason
    if (
        method is None
        and isinstance(module, (nn.RNNBase, nn.RNNCellBase))
        and len(inputs) > 1
        and not _takes_state(module, *inputs[:2])
    ):
        wanted = "a pair of tensors" if len(_state_units(module)) == 2 else "one tensor"
        return f"its state must be {wanted} of {module.hidden_size} units"
    return _reason_of_layer(list(_leaves(inputs)), module, error)


def _reason_of_layer(given: list[Any], module: nn.Module, error: Exception) -> str | None:
    """Return what the layer that raised the error declares, and its input is not."""
    inside = next((frame for frame in frames(error) if frame.f_code.co_name == "forward"), None)
    layer: Any = None if inside is None else inside.f_locals.get("self")
    got = None if inside is None else inside.f_locals.get("input")
    if not isinstance(layer, _DECLARING) or not isinstance(got, Tensor):
        return None
    name, produced = "", set()
    for path, one in walk(module):
        if one is layer:
            name = path
            break
        produced |= _produced(one)
    ranks = range(1, 100) if isinstance(layer, nn.Linear) else (1, 2) if isinstance(layer, nn.RNNCellBase) else (2, 3)
    features = layer.in_features if isinstance(layer, nn.Linear) else layer.input_size
    named = f"its layer {layer_name(name, layer, '')!r} "
    reason = wrong_shape(got.shape, ranks, features, [one.shape for one in given], produced)
    if reason is not None:
        return named + reason
    devices = {parameter.device for parameter in parameters(layer)}
    given = [one for one in given if isinstance(one, Tensor)]
    if got.device not in devices and got.device in {one.device for one in given}:
        return f"{named}is on device {next(iter(devices))}, the input on {got.device}"
    own = {parameter.dtype for parameter in parameters(layer)}
    if (
        got.dtype not in own
        and got.dtype in {one.dtype for one in given}
        and not torch.is_autocast_enabled(got.device.type)
    ):
        return f"{named}takes {next(iter(own))}, not {got.dtype}"
    return None


def _state_units(module: Any) -> tuple[int, ...]:
    """Return how many units each state of a recurrent module has."""
    hidden, cell = getattr(module, "proj_size", 0) or module.hidden_size, cell_of(module)
    return (hidden, module.hidden_size) if cell is not None and cell.states == 2 else (hidden,)


def _takes_state(module: Any, x: Any, state: Any) -> bool:
    """Return whether a recurrent module can begin with a state: how many tensors, and of how many units."""
    if state is None:
        return True
    parts = state if isinstance(state, (tuple, list)) else (state,)
    units = _state_units(module)
    return len(parts) == len(units) and all(
        isinstance(part, Tensor) and part.dim() > 0 and part.shape[-1] == size
        for part, size in zip(parts, units, strict=True)
    )


def _produced(layer: nn.Module) -> set[int]:
    if isinstance(layer, nn.Linear):
        return {layer.out_features}
    if isinstance(layer, (nn.RNNBase, nn.RNNCellBase)):
        size = getattr(layer, "proj_size", 0) or layer.hidden_size
        return {size, 2 * size} if getattr(layer, "bidirectional", False) else {size}
    return {layer.embedding_dim} if isinstance(layer, nn.Embedding) else set()
