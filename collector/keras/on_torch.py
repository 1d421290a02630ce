"""What of torch's own state a call of a Keras model changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gatewatch.collector.torch.call_contexts import torch_isolated
from gatewatch.collector.torch.outside import CLASSES, KINDS
from gatewatch.collector.torch.random_draws import save_generator, shared_generators

__all__ = ["CLASSES", "KINDS", "isolated", "shared"]


@contextmanager
def isolated() -> Iterator[None]:
    """While open, record no gradients; put torch's shared generators back, from which Keras draws weights, too."""
    undo = [save_generator(generator) for generator in shared_generators()]
    try:
        with torch_isolated():
            yield
    finally:
        for restore in undo:
            restore()


def shared() -> Mapping[str, Any]:
    """Return what is shared in this process beside its random state, by the name that code reaches it by: nothing."""
    return {}
