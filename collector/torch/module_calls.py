"""Who is told of the calls of a module, before they are made, without a trace in the module.

A hook would be one: torch takes another way through a call where there are hooks, copies and pickles have them, and
other code may count them. So it is `nn.Module.__call__`, which all calls go through, that tells while somebody watches.
`own_calls` says why there is another way for what is watched in every step.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import nn

from gatewatch.collector.runtime.fork import reset_in_forked_child

See = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], None]
"""Called with a module and the arguments of its call; must not raise."""


class ModuleCalls:
    """The modules whose calls somebody watches. What torch.compile compiles tells nobody."""

    def __init__(self) -> None:
        self._watched: dict[int, dict[See, nn.Module]] = {}
        self._before: Callable[..., Any] = nn.Module.__call__
        self._ours: Callable[..., Any] | None = None
        self.after_fork_in_child()
        reset_in_forked_child(self)

    def after_fork_in_child(self) -> None:
        """Replace the lock, which another thread may have held."""
        self._lock = threading.Lock()

    def watch(self, module: nn.Module, see: See) -> None:
        """Tell of calls of a module from now on."""
        with self._lock:
            self._watched[id(module)] = {**self._watched.get(id(module), {}), see: module}
            if self._ours is None:
                self._before = nn.Module.__call__
                self._ours = nn.Module.__call__ = self._telling(self._before)  # type: ignore[method-assign]  # put back below

    def release(self, module: nn.Module, see: See) -> None:
        """Tell no more. Where somebody has replaced `nn.Module.__call__` since, theirs stays, and ours below it."""
        with self._lock:
            left = {one: watched for one, watched in self._watched.pop(id(module), {}).items() if one != see}
            if left:
                self._watched[id(module)] = left
            if not self._watched and nn.Module.__call__ is self._ours:
                nn.Module.__call__ = self._before  # type: ignore[method-assign]  # as above
                self._ours = None

    def _telling(self, own: Callable[..., Any]) -> Callable[..., Any]:
        watched = self._watched

        @functools.wraps(own)
        def call(module: nn.Module, *arguments: Any, **options: Any) -> Any:
            if not torch.compiler.is_compiling():
                for see in watched.get(id(module), ()):
                    see(module, arguments, options)
            return own(module, *arguments, **options)

        return call


module_calls: Final = ModuleCalls()
