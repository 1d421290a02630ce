"""Undo what a call of a copy does outside of the copy: to globals, attributes of classes, and torch's global hooks."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from gatewatch.collector.runtime.code_names import is_users, may_draw
from gatewatch.collector.runtime.object_state import Kinds, ObjectState, Place, Visit
from gatewatch.collector.torch.random_draws import (
    DRAW_UNNAMED,
    OPERATIONS,
    draws_undone,
    is_alone,
    save_generator,
    shared_by_name,
)
from gatewatch.collector.torch.twin import Twin

_CODE: Final = (types.FunctionType, types.BuiltinMethodType, type(np.random.seed), type, types.ModuleType)


@contextmanager
def outside_restored(twin: Twin, names: Collection[str] = ()) -> Iterator[Mapping[str, str]]:
    """While open, let calls of a copy leave nothing behind in what their code names outside of the copy.

    Args:
        twin: the copy.
        names: of the methods that are called, beside those that torch calls itself.

    Yields:
        What is not restored → why.
    """
    copies = [(original, twin.copies[id(original)]) for original in twin.originals]
    kinds: set[Any] = {type(original) for original in twin.originals}
    code = set(filter(is_users, kinds))
    held = [copy for _, copy in copies if isinstance(copy, _CODE) or _of_library_that_draws(type(copy))]
    roots = {str(number): root for number, root in enumerate([*code, *held])} | _global_hooks()
    is_code = set(map(id, held))
    apart = [copy for original, copy in copies if copy is not original and id(copy) not in is_code]
    if any(isinstance(original, DRAW_UNNAMED) for original in twin.originals):
        names = {*names, *OPERATIONS}
    state = ObjectState(roots, _KINDS, names, apart, shared_by_name())
    try:
        with draws_undone(is_alone):  # what no code shows, in an extension written in C, can be of the look alone
            yield state.left_out
    finally:
        state.restore()


def _of_library_that_draws(kind: type) -> bool:
    return may_draw(kind.__module__) and not is_users(kind)


def _global_hooks() -> dict[str, Any]:
    """Return what torch calls around the forward of every module, by name."""
    registered = vars(torch.nn.modules.module)
    return {name: hooks for name, hooks in registered.items() if name.startswith("_global_") and hooks is not None}


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
    state.undo(save_generator(generator))


KINDS: Final[Mapping[type, Visit]] = {Tensor: _save_tensor, torch.Generator: _save_generator}
"""How tensors and generators are saved."""
CLASSES: Final = (nn.Module,)
"""The classes of torch whose instances hold what is the user's."""
_KINDS: Final = Kinds(KINDS, CLASSES)
