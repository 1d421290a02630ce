"""The training's own calls of modules, seen through torch's global hook, which is there until each was called once.

A hook of a module's own would be copied and pickled with the module, and TorchScript would refuse to compile it. The
global one leaves nothing in any module. `torch.compile` warns of global hooks, so there is none where it is in use.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from torch import nn
from torch.nn.modules import module as hooks
from torch.utils.hooks import RemovableHandle

from gatewatch.collector.runtime.signals import defer_sigint
from gatewatch.collector.torch.call_contexts import is_recorded_for_later

T = TypeVar("T")


class OwnCalls(Generic[T]):
    """The first call of each of some modules, by the thread that began to watch.

    A call of `forward` itself is not seen, nor any in a process that uses torch.compile.

    Args:
        take: module, positional arguments, arguments by name → what is to be kept of a call. It is called when the
            module's forward has returned, and copies what the training may change.
        guarded_and_charged: the context in which it is called. No error leaves it, and it counts the time against the
            budget.
        training: whether only calls in training mode count: those of a validation are passed over.
    """

    def __init__(
        self,
        take: Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], T],
        guarded_and_charged: Callable[[str], AbstractContextManager[None]],
        *,
        training: bool,
    ) -> None:
        self._take, self._guarded_and_charged, self._training = take, guarded_and_charged, training
        self._awaited: dict[int, nn.Module] = {}
        self._seen: dict[int, T] = {}
        self._handle: RemovableHandle | None = None
        self._thread = 0

    @property
    def is_watching(self) -> bool:
        """Whether `begin` was called since the last `end`."""
        return self._thread != 0

    def begin(self, modules: Iterable[nn.Module]) -> None:
        """Watch for the next call of each of these modules."""
        with defer_sigint():
            self.end()
            self._awaited = {id(module): module for module in modules}
            self._thread = threading.get_ident()
            if self._awaited and not _is_compiling_in_use():
                self._handle = hooks.register_module_forward_hook(self._called, with_kwargs=True)

    def end(self) -> dict[int, T]:
        """Watch no longer; return `id` of a module → what was taken of its first call."""
        with defer_sigint():
            self._remove()
            seen, self._seen, self._awaited, self._thread = self._seen, {}, {}, 0
        return seen

    def _called(self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        if id(module) not in self._awaited or is_recorded_for_later() or threading.get_ident() != self._thread:
            return
        if self._training and not module.training:
            return
        with self._guarded_and_charged("hooks"):
            del self._awaited[id(module)]
            if not self._awaited:
                self._remove()
            self._seen[id(module)] = self._take(module, arguments, options)

    def _remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            vars(hooks).get("_global_forward_hooks_with_kwargs", {}).pop(self._handle.id, None)  # torch forgets it
            self._handle = None


def _is_compiling_in_use() -> bool:
    """Return whether something was given to torch.compile in this process, as far as this version of torch tells."""
    backends = getattr(sys.modules.get("torch._dynamo.eval_frame"), "cached_backends", {})
    return any(backend is not None for backend in list(backends.values()))
