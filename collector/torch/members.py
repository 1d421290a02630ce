"""The parts of a torch module, whatever its class makes of `named_modules` and the like; and tensors as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

COMPILED = "_orig_mod"
"""The child of torch.compile's wrapper: what was compiled."""


def walk(
    module: nn.Module, is_leaf: Callable[[nn.Module], bool] = lambda module: False
) -> Iterator[tuple[str, nn.Module]]:
    """Yield path and module, of the module and all below it, each once, and none that is inside a leaf.

    What torch.compile wraps has the path of its wrapper.
    """
    seen: set[int] = set()

    def below(parent: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        if id(parent) in seen:
            return
        seen.add(id(parent))
        yield path, parent
        for name, child in parent._modules.items() if not is_leaf(parent) else ():
            if child is not None:
                yield from below(child, path if name == COMPILED else _joined(path, name))

    return below(module, "")


def modules(module: nn.Module) -> list[nn.Module]:
    """Return the module and all below it, each once."""
    return [part for _, part in walk(module)]


def named_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return name and parameter, of the module and all below it; a shared one comes once, under its first name."""
    by_id: dict[int, tuple[str, nn.Parameter]] = {}
    for path, part in walk(module):
        for name, parameter in part._parameters.items():
            if parameter is not None:
                by_id.setdefault(id(parameter), (_joined(path, name), parameter))
    return list(by_id.values())


def parameters(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the module and all below it, each once."""
    return [parameter for _, parameter in named_parameters(module)]


def buffers(module: nn.Module) -> list[Tensor]:
    """Return the buffers of the module and all below it, each once."""
    by_id = {id(buffer): buffer for part in modules(module) for buffer in part._buffers.values() if buffer is not None}
    return list(by_id.values())


def as_array(tensor: Any) -> Any:
    """Return a tensor as a NumPy array, float32 where it is of half precision; anything else as it is.

    The array shares the memory of a tensor that lies there.
    """
    if not isinstance(tensor, Tensor):
        return tensor
    dense = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
    return (dense.float() if dense.dtype in (torch.float16, torch.bfloat16) else dense).cpu().numpy()


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
