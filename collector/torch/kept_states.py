"""The recurrent states that a module keeps from one call to the next, and calls without them.

A backtest moves such a state from bar to bar. A fixed probe that is looked at in between must not begin with it: what
the probe does would move with the market, although the network stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from gatewatch.collector.torch.call_contexts import Forward, replaced_forward
from gatewatch.collector.torch.calls import as_tuple, read_arguments
from gatewatch.collector.torch.inputs import tensors
from gatewatch.collector.torch.layers import RecurrentLayer, modules

_NO_STATES: Final = ("_parameters", "_modules")
"""Attributes of a module that hold no states; its buffers are one too."""


@contextmanager
def without_kept_states(module: nn.Module, layers: Mapping[str, RecurrentLayer]) -> Iterator[None]:
    """While open, let recurrent modules begin with zeros where they are given a state that the module has kept.

    That is one which shares its memory with a tensor in an attribute or a buffer of the module or of one of its parts,
    or is equal to it. A state that is a parameter, or is computed from the inputs, stays. Only the first call of each
    recurrent module counts: later ones go on from it.

    Args:
        module: the module, a copy: it is called inside.
        layers: name → layer of it.
    """
    kept = _kept_tensors(module)
    with ExitStack() as stack:
        for recurrent in dict.fromkeys(layer.module for layer in layers.values() if layer.cell is not None):
            stack.enter_context(replaced_forward(recurrent, _begin_with_zeros(kept)))
        yield


def _kept_tensors(module: nn.Module) -> list[Tensor]:
    values = [value for part in modules(module) for name, value in vars(part).items() if name not in _NO_STATES]
    return [tensor for tensor in tensors(values) if not isinstance(tensor, nn.Parameter)]


def _begin_with_zeros(kept: list[Tensor]) -> Forward:
    is_first = True

    def forward(module: nn.Module, own: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        nonlocal is_first
        x, hx = read_arguments(*arguments, **options)
        begins, is_first = is_first, False
        if begins and any(_is_same(state, other) for state in as_tuple(hx) for other in kept):
            hx = None
        return own(x, hx)

    return forward


def _is_same(state: Tensor, other: Tensor) -> bool:
    if state.untyped_storage().data_ptr() == other.untyped_storage().data_ptr():
        return True
    alike = (state.shape, state.dtype, state.device) == (other.shape, other.dtype, other.device)
    return alike and torch.equal(state, other)
