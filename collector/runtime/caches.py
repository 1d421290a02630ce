"""Caches of functools for the length of a look: what a look computes is not kept for the training."""

from __future__ import annotations

import functools
import threading
from typing import Any


def cached_in(entry: Any) -> functools._lru_cache_wrapper[Any] | None:
    """Return the function with a cache that an entry of a class or of a namespace is; None where it is none."""
    function = entry.__func__ if isinstance(entry, staticmethod | classmethod) else entry
    return function if isinstance(function, functools._lru_cache_wrapper) else None


def with_empty_cache(entry: Any, own: functools._lru_cache_wrapper[Any]) -> Any:
    """Return what an entry with a cache is replaced by: in this thread its cache is empty, in others it is the own.

    Args:
        entry: such as `cached_in` finds a cache in.
        own: that cache.
    """
    empty = functools.lru_cache(**own.cache_parameters())(own.__wrapped__)
    thread = threading.get_ident()

    def present() -> functools._lru_cache_wrapper[Any]:
        return empty if threading.get_ident() == thread else own

    @functools.wraps(own)
    def function(*arguments: Any, **options: Any) -> Any:
        return present()(*arguments, **options)

    vars(function).update(
        cache_info=lambda: present().cache_info(),
        cache_clear=lambda: present().cache_clear(),
    )
    return function if entry is own else type(entry)(function)
