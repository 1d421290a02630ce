"""Which layers of a Keras model are recurrent, and which of them can be replayed exactly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import keras

from gatewatch.collector.cells import CELLS, Cell, Cells, types_of
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.replay.activations import ACTIVATIONS
from gatewatch.collector.runtime.error_guard import has_attribute

ACTIVATION_NAMES: Final = {getattr(keras.activations, n): n for n in ACTIVATIONS if hasattr(keras.activations, n)}

_REPLAYED_DTYPES: Final = ("float16", "bfloat16", "float32", "float64")
_STOCK_LAYERS: Final = (keras.layers.RNN, keras.layers.LSTM, keras.layers.GRU)
_STOCK_METHODS: Final = {n: {getattr(t, n) for t in _STOCK_LAYERS} for n in ("call", "inner_loop", "get_initial_state")}
_CONVOLUTIONAL: Final = (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
_CELLS: Final = (
    keras.layers.SimpleRNNCell,
    keras.layers.StackedRNNCells,
    *(kind for cell in CELLS for kind in types_of(cell.keras)),
)


def recurrent_layers(model: Any, *, required: bool = False) -> dict[str, Any]:
    """Return path → layer, for every layer that is recurrent or offers `get_gate_history()`.

    A wrapped or nested layer is named by its path below the model: `bidirectional/forward_lstm`. A cell that the model
    steps itself, without a layer around it, is among them, so that it can be named where it is not recorded. The second
    of two layers that have one name, as a subclassed model allows, is `lstm_1`.

    Raises:
        ConfigError: one is required, and there is none.
    """
    layers = {path: layer for path, layer in walk(model) if _is_recurrent(layer)}
    if required and not layers:
        wrapper = next((path for path, layer in walk(model) if type(layer).__name__ == "TorchModuleWrapper"), None)
        raise ConfigError(
            f"the model {name_of(model)!r} has no recurrent layer: LSTM and GRU layers are recorded, and layers that "
            "offer get_gate_history()"
            + (f"; gatewatch.torch.GateMonitor records the module that {wrapper!r} wraps" if wrapper else "")
        )
    return layers


def walk(model: Any, *, into_recurrent: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield path and layer, of the model and of all below it, each once.

    Args:
        model: a Keras model or layer.
        into_recurrent: also what is below a recurrent layer; its own cell has the path of the layer.
    """
    seen: set[int] = set()
    taken: set[str] = set()

    def below(layer: Any, path: str, inside: bool) -> Iterator[tuple[str, Any]]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        if not inside and _is_recurrent(layer):
            inside = True
            path = first = path or name_of(layer)
            others = 0
            while path in taken:
                others += 1
                path = f"{first}_{others}"
            taken.add(path)
        yield path or name_of(layer), layer
        if inside and not into_recurrent:
            return
        for child in layer._flatten_layers(include_self=False, recursive=False):
            own_cell = isinstance(layer, keras.layers.RNN) and child is layer.cell
            yield from below(child, path if own_cell else "/".join(filter(None, (path, name_of(child)))), inside)

    return below(model, "", inside=False)


def fed_layer(model: Any) -> str | None:
    """Return the path of the only recurrent layer that is given the model's only input as it is; None where unknown.

    That is known of models whose graph Keras has: `Sequential` and functional ones.
    """
    try:
        (fed,) = model.inputs
        paths = [path for path, layer in recurrent_layers(model).items() if _takes(layer, fed)]
    except Exception:  # a model without a graph, or of whoever wrote its class
        return None
    return paths[0] if len(paths) == 1 else None


def _takes(layer: Any, fed: Any) -> bool:
    return any(tensor is fed for node in layer._inbound_nodes for tensor in node.input_tensors[:1])


def offers_history(layer: Any) -> bool:
    """Return whether a layer gives its gates itself, by `get_gate_history()`."""
    return has_attribute(layer, "get_gate_history")


def name_of(layer: Any) -> str:
    """Return the name of a layer, or its type in lower case where a `name` of the user's own raises."""
    try:
        return str(layer.name)
    except Exception:  # of whoever wrote its class
        return type(layer).__name__.lower()


def all_variables(model: Any) -> list[Any]:
    """Return what Keras's `variables` are; a class of the user's may have that property do something else."""
    by_id: dict[int, Any] = {}
    for layer in model._flatten_layers():
        seeds = [generator.state for generator in layer._seed_generators]
        for variable in [*layer._trainable_variables, *layer._non_trainable_variables, *seeds]:
            by_id.setdefault(id(variable), variable)
    return list(by_id.values())


def cell_of(cell: Any, cells: Cells = CELLS) -> Cell | None:
    """Return the entry of a Keras cell; None where its type, exactly, has none."""
    return next((entry for entry in cells if type(cell) in types_of(entry.keras)), None)


def inner_cells(layer: Any) -> list[tuple[str, Any]]:
    """Return the cells of a recurrent layer in the order in which they run, each with its suffix to the layer's path.

    That is nothing for a layer's only cell, and `/<name>` for each of a stack.
    """
    cell = layer.cell
    if type(cell) is keras.layers.StackedRNNCells:
        return [(f"/{name_of(inner)}", inner) for inner in cell.cells]
    return [("", cell)]


def why_not_replayed(layer: Any, cells: Cells = CELLS) -> str | None:
    """Return why a recurrent layer cannot be replayed exactly, whatever it is called with; None where it can."""
    kinds = " and ".join(entry.name for entry in cells)
    if not isinstance(layer, keras.layers.RNN):
        return f"it is a cell, {type(layer).__name__}, that no RNN layer runs"
    if isinstance(layer, _CONVOLUTIONAL):
        return f"{type(layer).__name__} is convolutional; only {kinds} are replayed"
    for suffix, cell in inner_cells(layer):
        what = f"its cell {name_of(cell)!r}" if suffix else "its cell"
        if cell_of(cell, cells) is None:
            return f"{what}, {type(cell).__name__}, is not Keras's own {kinds.replace(' and ', ' or ')}"
        if reason := _why_not_cell(cell, what):
            return reason
    for name, stock in _STOCK_METHODS.items():
        if getattr(type(layer), name) not in stock or name in vars(layer):
            return f"{type(layer).__name__} has a {name}() of its own"
    return None


def _why_not_cell(cell: Any, what: str) -> str | None:
    if "call" in vars(cell):
        return f"{what} has a call() of its own"
    for name in ("activation", "recurrent_activation"):
        function = getattr(cell, name, None)
        if function is not None and function not in ACTIVATION_NAMES:
            return f"its {name}, {getattr(function, '__name__', type(function).__name__)}, is not known"
    if cell.compute_dtype not in _REPLAYED_DTYPES:
        return f"it computes in {cell.compute_dtype}"
    return None


def _is_recurrent(layer: Any) -> bool:
    return offers_history(layer) or isinstance(layer, (keras.layers.RNN, *_CELLS))
