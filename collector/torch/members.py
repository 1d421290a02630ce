"""The parts of a torch module, read where torch keeps them: a class of the user's may override how it is asked."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


def children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Name and module, of the modules directly below one."""
    return [(name, child) for name, child in module._modules.items() if child is not None]


def modules(module: nn.Module) -> list[nn.Module]:
    """The module and all below it, each once."""
    by_id: dict[int, nn.Module] = {}

    def walk(one: nn.Module) -> None:
        if id(one) not in by_id:
            by_id[id(one)] = one
            for _, child in children(one):
                walk(child)

    walk(module)
    return list(by_id.values())


def named_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter, of the module and all below it; one that is shared comes once, under its first name."""
    seen: set[int] = set()

    def walk(one: nn.Module, path: str) -> Iterator[tuple[str, nn.Parameter]]:
        if id(one) in seen:
            return
        seen.add(id(one))
        for name, parameter in one._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{path}{name}", parameter
        for name, child in children(one):
            yield from walk(child, f"{path}{name}.")

    return walk(module, "")


def parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of the module and all below it, each once."""
    return [parameter for _, parameter in named_parameters(module)]


def buffers(module: nn.Module) -> list[Tensor]:
    """The buffers of the module and all below it, each once."""
    by_id = {id(buffer): buffer for one in modules(module) for buffer in one._buffers.values() if buffer is not None}
    return list(by_id.values())
