"""When a tensor has no values that can be read: while calls are recorded, and where others hold them."""

from __future__ import annotations

import torch


def is_recorded() -> bool:
    """Return whether torch.compile or a CUDA graph records calls to run them later: then no value may be copied."""
    return torch.compiler.is_compiling() or (
        torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]  # torch is typed in part
    )


def has_values(tensor: torch.Tensor) -> bool:
    """Return whether NumPy can read the values. A DTensor, or any class with its own dispatch, holds none itself."""
    own = getattr(type(tensor), "__torch_dispatch__", None)
    return own is torch.Tensor.__torch_dispatch__ and not tensor.is_meta
