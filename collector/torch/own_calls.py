"""The first call of each recurrent module in a step, seen through the attribute that `module.compile()` sets.

The attribute is there from a step of the loop to the module's next call. In a copy or a pickle of the module it is
None, torch's own value, and TorchScript compiles a recurrent module that has it.

There are two ways to see the training's own calls, since neither does for the other:

- This one, in every step while states are followed. It costs some microseconds and touches nothing but the recurrent
  modules. It cannot be used for the model itself: TorchScript refuses a class of the user's that has the attribute, and
  what torch.compile has made of a module would be made anew.
- `module_calls`, which replaces `nn.Module.__call__`, in the few steps whose feed is looked at. It sees wrappers and
  compiled modules too, and sets no attribute anywhere. To put it there and to take it away costs 50 microseconds, since
  Python updates all subclasses, and meanwhile each call of any module costs 0.4 microseconds more.

Hooks would be a third, with a trace: other code may count them, copies and pickles have them, and a global one changes
how torch calls all modules.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Generic, TypeVar

from torch import nn
from torch.nn.modules import module as torch_modules

from gatewatch.collector.torch.call_contexts import is_recorded_for_later

T = TypeVar("T")

_REPLACED: Final = "_compiled_call_impl"
"""The attribute: what `module(...)` calls where it is not None."""


class OwnCalls(Generic[T]):
    """The first call of each of some modules, by the thread that began to watch.

    A call of `forward` itself is not seen, nor one of a module with hooks of the user's own before its forward, which
    may change what it is given, nor any in a process that uses torch.compile.

    Args:
        take: module, positional arguments, arguments by name → what is to be kept of a call. It is called before the
            module's forward.
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
        self._awaited: dict[int, _Call] = {}
        self._seen: dict[int, T] = {}
        self._thread = 0

    def begin(self, modules: Iterable[nn.Module]) -> None:
        """Watch for the next call of each of these modules."""
        self.end()
        self._thread = threading.get_ident()
        for module in () if _is_compiling_in_use() else modules:
            if getattr(module, _REPLACED, None) is None:
                self._awaited[id(module)] = call = _Call(module, self._called)  # first: Ctrl-C may come in between
                vars(module)[_REPLACED] = call

    def end(self) -> dict[int, T]:
        """Watch no longer; return `id` of a module → what was taken of its first call."""
        for call in self._awaited.values():
            call.remove()
        seen, self._seen, self._awaited = self._seen, {}, {}
        return seen

    def _called(self, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        if is_recorded_for_later() or threading.get_ident() != self._thread or (self._training and not module.training):
            return
        with self._guarded_and_charged("hooks"):
            call = self._awaited.get(id(module))
            if call is not None:
                call.remove()
                del self._awaited[id(module)]
                if not module._forward_pre_hooks and not torch_modules._global_forward_pre_hooks:
                    self._seen[id(module)] = self._take(module, arguments, options)


class _Call:
    """What a module is called through while its next call is awaited.

    `nn.DataParallel` gives its replicas, and other code its copies, all that is in `vars(module)`. So it is asked for
    whom a call is: torch calls it from a function whose `self` is that module.
    """

    def __init__(self, module: nn.Module, called: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]) -> None:
        self._module, self._called = module, called

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        module = sys._getframe(1).f_locals.get("self")
        if module is self._module or not isinstance(module, nn.Module) or vars(module).get(_REPLACED) is not self:
            module = self._module
            self._called(module, arguments, options)
        else:  # a copy, which nobody watches
            del vars(module)[_REPLACED]
        return module._call_impl(*arguments, **options)  # type: ignore[no-untyped-call]  # torch is typed in part

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Be None, torch's own value, in a copy or a pickle of the module."""
        return type(None), ()

    def remove(self) -> None:
        """Let the module be called as before."""
        if vars(self._module).get(_REPLACED) is self:
            del vars(self._module)[_REPLACED]


def _is_compiling_in_use() -> bool:
    """Return whether something was given to torch.compile in this process, as far as this version of torch tells."""
    backends = getattr(sys.modules.get("torch._dynamo.eval_frame"), "cached_backends", {})
    return any(backend is not None for backend in list(backends.values()))
