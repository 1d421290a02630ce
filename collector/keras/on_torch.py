"""What of torch's own state a call of a Keras model changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gatewatch.collector.torch.call_contexts import torch_isolated
from gatewatch.collector.torch.outside import CLASSES, KINDS

__all__ = ["CLASSES", "KINDS", "isolated", "shared"]

isolated = torch_isolated


def shared() -> Mapping[str, Any]:
    """Return what is shared in this process beside its random state, by the name that code reaches it by: nothing."""
    return {}
