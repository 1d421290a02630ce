"""What of torch's own state a call of a Keras model changes."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from gatewatch.collector.runtime.object_state import ObjectState, Place, Visit
from gatewatch.collector.torch.call_contexts import torch_isolated

isolated = torch_isolated


def shared() -> Mapping[str, Any]:
    """Return what is shared in this process beside its random state, by name: nothing."""
    return {}


def _save_tensor(state: ObjectState, tensor: Tensor, place: Place) -> None:
    if tensor.layout is not torch.strided or tensor.is_meta or not state.affords(tensor.nbytes, place):
        return
    own = tensor.data
    before = own.clone()

    def restore() -> None:
        if tensor.data_ptr() != own.data_ptr():
            tensor.data = own
        if not torch.equal(own, before):
            own.copy_(before)

    state.undo(restore)


def _save_generator(state: ObjectState, generator: torch.Generator, place: Place) -> None:
    state.undo(functools.partial(generator.set_state, generator.get_state()))


KINDS: Final[Mapping[type, Visit]] = {Tensor: _save_tensor, torch.Generator: _save_generator}
CLASSES: Final = (torch.nn.Module,)
