"""The inputs and targets of what a data object yields."""

from __future__ import annotations

from typing import Any

from gatewatch.collector.keras.feed.line import Batch


def inputs_and_targets(element: Any) -> Batch:
    """Return the inputs and the targets, None where it has none; weights of samples are left out.

    Args:
        element: inputs, (inputs,), (inputs, targets) or (inputs, targets, weights of the samples), as `fit` takes it.
    """
    if not isinstance(element, list | tuple):
        return element, None
    return (element[0] if element else None), (element[1] if len(element) > 1 else None)
