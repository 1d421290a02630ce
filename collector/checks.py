"""Whether what a user gives fits the model: the names of layers, the values of a probe, the shapes of inputs."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import checked_path
from gatewatch.collector.text import safe_repr

Shape = Sequence[int | None]
Layer = TypeVar("Layer")

_KINDS: Final = {
    ("keras", "Layer"): ("a Keras layer", "gatewatch.{entry} records it"),
    ("tf_keras", "Layer"): ("a tf_keras layer", "Gatewatch records those of Keras 3: build it with `import keras`"),
    ("stable_baselines3", "BaseAlgorithm"): (
        "a Stable-Baselines3 algorithm",
        "learn(callback=gatewatch.sb3.GateMonitorCallback()) records it",
    ),
    ("torch", "Module"): ("a torch module", "gatewatch.torch.{entry} records it"),
}
"""Package and name of a class → what its instances are, and what records them."""


def framework_of(value: Any) -> tuple[str, str] | None:
    """Return the key in `_KINDS` of the class that an object inherits from; None where it inherits from none.

    The classes are known by their names: no framework is imported. With its torch backend a layer of Keras is a torch
    module too, but a layer first.
    """
    bases = ((base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__)
    return next((base for base in bases if base in _KINDS), None)


def check_framework(argument: str, value: Any, framework: str, entry: str) -> None:
    """Check that a model is of no other framework.

    Args:
        argument: in which it was given, for the message.
        value: the model.
        framework: the package that it should be of: keras or torch.
        entry: what it was given to: GateMonitor or gates.

    Raises:
        ConfigError: it is of another; the message names what records it.
    """
    found = framework_of(value)
    if found is not None and found[0] != framework:
        is_what, remedy = _KINDS[found]
        raise ConfigError(f"{argument}: {type(value).__name__} is {is_what}; {remedy.format(entry=entry)}")


@contextmanager
def explain_mismatch(explain: Callable[[Exception], ConfigError | None]) -> Iterator[None]:
    """While open, raise an error of a model's call as a ConfigError where the model's inputs are what is wrong.

    Args:
        explain: the error → what is wrong with the inputs; None where they are not why the call has failed.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if mismatch := explain(error):
            raise mismatch from error
        raise


def choose_layers(
    layers: Mapping[str, Layer],
    chosen: Collection[str] | None,
    other_name: Callable[[Layer], str],
    owner: str,
    argument: str = "layers",
) -> dict[str, Layer]:
    """Return the layers that a user has chosen.

    Args:
        layers: name → layer, all that are recurrent.
        chosen: names of some of them; None for all.
        other_name: by which a layer may be chosen too.
        owner: model or module, for the message.
        argument: in which the names were given, for the message.

    Raises:
        ConfigError: none of the layers has one of these names.
    """
    if chosen is None:
        return dict(layers)
    for name in chosen:
        if not any(name in (path, other_name(layer)) for path, layer in layers.items()):
            present = ", ".join(map(repr, layers))
            raise ConfigError(f"{argument}: {safe_repr(name)} is no recurrent layer of the {owner}; it has {present}")
    return {path: layer for path, layer in layers.items() if {path, other_name(layer)} & set(chosen)}


def mistaken_model(value: Any) -> str:
    """Return what to do where something else was given as the model, to be put behind an error."""
    if isinstance(value, type):
        return f": it is a class; give a model of it, such as {value.__name__}()"
    return "; give the model first, then the batch to look at" if _shape(value) is not None else ""


def _shape(value: Any) -> Any:
    """Return the shape of an array of whatever library; None for what has none."""
    with suppress(Exception):  # a user's class may do anything
        return value.shape
    return None


def check_log_dir(log_dir: Any) -> Path | None:
    """Return the folder for the files of the epochs, from the root; None for none.

    Raises:
        ConfigError: it is no path, or the URL of a store.
    """
    if log_dir is None:
        return None
    if not isinstance(log_dir, str | os.PathLike):
        probe = "; a batch to look at is given as probe=" if _shape(log_dir) is not None else ""
        raise ConfigError(f"log_dir={safe_repr(log_dir)}: must be a path, or None for no files{probe}")
    if "://" in str(log_dir):
        raise ConfigError(
            f"log_dir={safe_repr(log_dir)}: is a URL and no folder; the URL of a store is given as store="
        )
    return checked_path(log_dir, "log_dir").absolute()


def check_metrics(metrics: Any) -> dict[Any, Any]:
    """Return metrics as a dict.

    Raises:
        ConfigError: they are no mapping.
    """
    if metrics is None or hasattr(metrics, "keys"):
        return dict(metrics or {})
    raise ConfigError(f"metrics={safe_repr(metrics)}: must be a mapping of names to numbers, such as {{'loss': 0.1}}")


def check_step_input(x: Any) -> None:
    """Check that what a step is to look at is no metric: `step` takes the inputs of the model first.

    Raises:
        ConfigError: it is a number, or a mapping of names to numbers.
    """
    values = list(x.values()) if isinstance(x, Mapping) else [x]
    if values and all(isinstance(value, int | float | str) or _shape(value) == () for value in values):
        remedy = "the first argument is the model's input; give metrics={'loss': 0.1}"
        raise ConfigError(f"step({safe_repr(x)}): {remedy}")


def check_values(arrays: Iterable[NDArray[Any]]) -> None:
    """Check the values of a probe.

    Raises:
        ConfigError: an array is empty, or has values that are not finite.
    """
    for array in arrays:
        if array.size == 0:
            raise ConfigError(f"the probe of shape {array.shape} holds no sequence; give a batch, such as x[:32]")
        finite = True
        with suppress(TypeError):  # of records, and of bytes
            finite = array.dtype.kind not in "fcV" or bool(np.isfinite(array).all())  # V: bfloat16
        if not finite:
            raise ConfigError("the probe holds values that are not finite; give a batch of sound inputs")


def wrong_arguments(model: Any, method: str, arguments: Sequence[Any]) -> str | None:
    """Return what a method of a model takes, where it does not take so many arguments."""
    try:
        signature = inspect.signature(getattr(model, method))
    except (TypeError, ValueError):  # a compiled one
        return None
    try:
        signature.bind(*arguments)
    except TypeError:
        return f"its {method} takes {signature}"
    return None


def frames(error: BaseException) -> Iterator[FrameType]:
    """Return the frames through which an error came, the one that raised it first."""
    return reversed([frame for frame, _ in walk_tb(error.__traceback__)])


def wrong_shape(
    got: Sequence[int], ranks: Collection[int], features: int | None, inputs: Iterable[Shape], produced: Collection[int]
) -> str | None:
    """Say what is wrong with the shape of a layer's input, where it is the model's own input that is wrong.

    None where the layer declares nothing else, or where the size may come from another layer of the model, so that the
    model does not fit itself.

    Args:
        got: the shape that the layer was given.
        ranks: how many dimensions it takes.
        features: how many features it takes, the last dimension; None where it has not decided yet.
        inputs: the shapes of the model's inputs.
        produced: the numbers of features that the layers before it give.
    """
    shapes = [tuple(size or 0 for size in shape) for shape in inputs]
    if len(got) not in ranks:
        if any(sorted(shape) == sorted(got) for shape in shapes):
            return f"takes {' or '.join(map(str, sorted(ranks)))} dimensions, not {len(got)}"
        return None
    if features is None or not got or got[-1] == features or got[-1] in produced:
        return None
    # The last dimensions of an input, or several of them made one.
    sizes = {math.prod(shape[k:]) for shape in shapes for k in range(min(1, len(shape) - 1), len(shape))}
    return f"takes {features} features, not {got[-1]}" if got[-1] in sizes else None
