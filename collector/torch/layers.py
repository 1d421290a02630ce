"""The parts of a torch module, which of them are recurrent, what they are called, and which parameters are whose.

The modules are found through `_modules`, not `named_modules()`: a user's class may override such methods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gatewatch.collector.cells import CELLS, Cell, Cells, types_of
from gatewatch.collector.checks import framework_of
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.runtime.error_guard import has_attribute

COMPILED: Final = "_orig_mod"
"""The child of torch.compile's wrapper: what was compiled."""
_WRAPPERS: Final = (nn.parallel.DistributedDataParallel, nn.DataParallel, AveragedModel)
_STOCK: Final = (nn.LSTM, nn.GRU, nn.RNN, nn.LSTMCell, nn.GRUCell, nn.RNNCell)
_RECURRENT: Final = frozenset({"LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"})
_PARAMS: Final = {"weight_ih": "kernel", "weight_hh": "recurrent", "weight_hr": "projection", "weight": "kernel"}
"""A weight → the tag `param`; every other parameter is a bias."""
# A parameter and what normalisation, pruning and parametrization make of its name: weight_hh_l0_g, weight_hh_l0_orig,
# parametrizations.weight_hh_l0.original0.
_PARAMETER: Final = re.compile(
    r"(?:parametrizations\.)?(?P<param>(?:weight|bias)(?:_ih|_hh|_hr)?)(?P<suffix>_l\d+(?:_reverse)?|)"
    r"(?:_g|_v|_orig|_raw|\.original\d*)?"
)


@dataclass(frozen=True, slots=True)
class RecurrentLayer:
    """One direction of one layer of a recurrent module.

    Attributes:
        module: the module that it is a part of.
        path: of the module; empty for a module that is looked at by itself.
        suffix: what torch ends the names of its weights with: `_l0`, `_l1_reverse`; empty for a cell.
        cell: how it is replayed; None where it is not.
    """

    module: nn.Module
    path: str
    suffix: str
    cell: Cell | None

    @property
    def offers_history(self) -> bool:
        """Whether the module gives its gates itself, by `get_gate_history()`."""
        return offers_history(self.module)


def recurrent_layers(module: nn.Module, cells: Cells = CELLS, *, required: bool = False) -> dict[str, RecurrentLayer]:
    """Return name → layer, for every layer of every module that is recurrent or offers `get_gate_history()`.

    A layer is named by its module's path and torch's own suffix: `policy.lstm/l0`, `policy.lstm/l0_reverse`, or `l0`
    where the module itself is looked at. A cell, or a module with `get_gate_history()`, is named by its path, or by
    its type in lower case.

    Raises:
        ConfigError: one is required, and there is none.
    """
    layers = {
        layer_name(path, child, suffix): RecurrentLayer(child, path, suffix, cell_of(child, cells))
        for path, child in walk(module, _is_recurrent)
        if _is_recurrent(child)
        for suffix in suffixes(child)
    }
    if required and not layers:
        other = next((path for path, part in walk(module) if framework_of(part) == ("keras", "Layer")), None)
        raise ConfigError(
            f"the module {type(module).__name__} has no recurrent layer: nn.LSTM, nn.GRU and their cells are recorded, "
            "and modules that offer get_gate_history()"
            + (f"; gatewatch.GateMonitor records {other!r}, a Keras layer" if other else "")
        )
    return layers


def layer_name(path: str, module: nn.Module, suffix: str) -> str:
    """Return the name of a layer."""
    if not suffix:
        return path or _type_name(module).lower()
    return f"{path}/{suffix[1:]}" if path else suffix[1:]


def offers_history(module: nn.Module) -> bool:
    """Return whether a module gives its gates itself, by `get_gate_history()`."""
    return has_attribute(module, "get_gate_history")


def suffixes(module: nn.Module) -> list[str]:
    """Return the suffixes of a module's layers, in torch's order."""
    if not isinstance(module, nn.RNNBase) or offers_history(module):
        return [""]
    directions = ("", "_reverse") if module.bidirectional else ("",)
    return [f"_l{k}{direction}" for k in range(module.num_layers) for direction in directions]


def why_not_replayed(module: nn.Module) -> str:
    """Return why a recurrent module whose kind is not among the cells cannot be replayed exactly."""
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return f"{_type_name(module)} has no gates"
    if isinstance(module, torch.jit.ScriptModule):
        return "it is compiled by TorchScript, which shows nothing of its calls"
    return f"it is {type(module).__module__}.{_type_name(module)}, not torch.nn's"


def trainable_parameters(module: nn.Module) -> dict[tuple[str, str], list[nn.Parameter]]:
    """Return (layer, param) → the parameters that require a gradient, for recurrent and dense (`nn.Linear`) layers.

    Layers are named as `recurrent_layers` names them. The params are kernel, recurrent, bias (of a recurrent layer
    both of torch's) and projection. Where a weight is normalised, pruned or parametrized, the parameters are those
    that it is made of.
    """
    by_name: dict[tuple[str, str], list[nn.Parameter]] = {}
    for path, child in walk(module):
        if not isinstance(child, (nn.RNNBase, nn.RNNCellBase, nn.Linear)):
            continue
        for name, parameter in named_parameters(child):
            match = _PARAMETER.fullmatch(name)
            if match and parameter.requires_grad:
                suffix = match["suffix"] if match["suffix"] in suffixes(child) else ""
                layer = layer_name(path, child, suffix)
                by_name.setdefault((layer, _PARAMS.get(match["param"], "bias")), []).append(parameter)
    return by_name


def cell_of(module: nn.Module, cells: Cells = CELLS) -> Cell | None:
    """Return the entry of a recurrent module; None where no entry is of its type or one that it inherits from."""
    return next((cell for cell in cells if isinstance(module, types_of(cell.torch))), None)


def torch_class(module: nn.Module) -> type[nn.Module]:
    """Return the class of torch's that a recurrent module is of, or inherits from; else its own."""
    return next((kind for kind in _STOCK if isinstance(module, kind)), type(module))


def why_not_called(module: nn.Module) -> str:
    """Return why torch's own forward of a recurrent module was not called."""
    if type(module).forward is torch_class(module).forward and "forward" not in vars(module):
        return "the module did not call it"
    return f"{_type_name(module)} has a forward of its own, and torch's was not called"


def walk(
    module: nn.Module, is_leaf: Callable[[nn.Module], bool] = lambda module: False
) -> Iterator[tuple[str, nn.Module]]:
    """Yield path and module, of the module and all below it, each once, and none that is inside a leaf.

    What is wrapped, see `wrapped`, has the path of its wrapper.
    """
    seen: set[int] = set()

    def below(parent: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        if id(parent) in seen:
            return
        seen.add(id(parent))
        yield path, parent
        inner = wrapped(parent)
        for name, child in parent._modules.items() if not is_leaf(parent) else ():
            if child is not None:
                yield from below(child, path if name == inner else _joined(path, name))

    return below(module, "")


def wrapped(module: nn.Module) -> str | None:
    """Return the name of the child that a wrapper wraps, to compile it or to train it on several devices.

    None of a module that is no such wrapper.
    """
    if COMPILED in module._modules:
        return COMPILED
    return "module" if isinstance(module, _WRAPPERS) else None


def bare(module: nn.Module) -> nn.Module:
    """Return what all wrappers of a module wrap; the module itself where there is none."""
    while (name := wrapped(module)) is not None and (inner := module._modules[name]) is not None:
        module = inner
    return module


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


def as_array(tensor: Any) -> Any:
    """Return a tensor as a NumPy array, float32 where it is of half precision; anything else as it is.

    The array shares the memory of a tensor that lies there.
    """
    if not isinstance(tensor, Tensor):
        return tensor
    dense = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
    return (dense.float() if dense.dtype in (torch.float16, torch.bfloat16) else dense).cpu().numpy()


def has_values(tensor: Tensor) -> bool:
    """Return whether NumPy can read the values. A DTensor, or any class with its own dispatch, holds none itself."""
    own = getattr(type(tensor), "__torch_dispatch__", None)
    return own is Tensor.__torch_dispatch__ and not tensor.is_meta


def _is_recurrent(module: nn.Module) -> bool:
    if wrapped(module) is not None:  # it may pass on the attributes of what it wraps
        return False
    if offers_history(module) or isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return True
    # Quantized and scripted ones are of other classes with the same names; a class of the user's may bear one too.
    return type(module).__module__.startswith("torch.") and _type_name(module) in _RECURRENT


def _type_name(module: nn.Module) -> str:
    scripted = isinstance(module, torch.jit.ScriptModule)
    return str(module.original_name if scripted else type(module).__name__)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
