"""What a copy of a module is before it has attributes, and what it becomes when the look is over.

Nothing of a user's class is called for it, neither now nor when the copy goes.
"""

from __future__ import annotations

import itertools
import types
from abc import ABC
from contextlib import suppress
from typing import Any

from torch import nn

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.runtime.code_names import is_of_library


def empty_module(kind: type[nn.Module]) -> Any:
    """Return a module of a class without attributes, and without a call of anything that is the class's.

    Raises:
        ConfigError: its `__del__` cannot be kept from being called.
    """
    if not hasattr(kind, "__del__"):
        return object.__new__(kind)
    module = object.__new__(_without_del(kind))
    try:
        object.__setattr__(module, "__class__", kind)
    except TypeError as error:
        raise ConfigError(
            f"a module of class {kind.__name__} cannot be looked at: its __del__ would be called for the copy too"
        ) from error
    return module


def emptied(module: nn.Module) -> None:
    """Take everything from a copy: a cache may hold on to it, and closures make circles."""
    vars(module).clear()
    if hasattr(type(module), "__del__"):
        with suppress(TypeError):  # its forward has made it one of another class
            object.__setattr__(module, "__class__", _without_del(type(module)))


def slots_of(kind: type[nn.Module]) -> list[types.MemberDescriptorType]:
    """Return the attributes that a class of modules, or a base of it, has slots for."""
    held = [vars(base).values() for base in kind.__mro__ if not is_of_library(base.__module__)]
    return [slot for slot in itertools.chain(*held) if isinstance(slot, types.MemberDescriptorType)]


def _without_del(kind: Any) -> type[nn.Module]:
    """Return a class whose objects are laid out as those of a class with a `__del__`, and can become such and back."""
    while kind.__base__.__dictoffset__:
        kind = kind.__base__
    return _EmptiedAbstract if kind.__base__ is ABC else _Emptied


class _Emptied(nn.Module):
    """What a copy becomes when the look is over: it is not for a copy to close what the original has opened."""


class _EmptiedAbstract(ABC, nn.Module):
    """The same where `ABC` comes before torch's classes."""


class StandIn(nn.Module):
    """In the place of what wraps a module (DistributedDataParallel, torch.compile): it calls the module, no more."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Call the module."""
        return next(self.children())(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        """Pass on the module's own attributes, as torch.compile's wrapper does."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if inner := next(iter(self._modules.values()), None):
                return getattr(inner, name)
            raise
