"""The random numbers that a process draws from torch's shared generators: which code may draw, and undoing it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn

from gatewatch.collector.runtime import saved
from gatewatch.collector.runtime.code_names import is_users
from gatewatch.collector.runtime.random_state import SHARED_GENERATORS
from gatewatch.collector.runtime.saved import Undo

OPERATIONS: Final = frozenset(
    {
        *("rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm", "random_"),
        *("normal", "normal_", "uniform", "uniform_", "log_normal", "log_normal_", "cauchy", "cauchy_"),
        *("exponential", "exponential_", "geometric", "geometric_", "bernoulli", "bernoulli_", "binomial", "poisson"),
        *("multinomial", "dropout", "dropout_", "alpha_dropout", "alpha_dropout_", "feature_dropout"),
        *("feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_", "native_dropout", "rrelu", "rrelu_"),
        *("rrelu_with_noise", "rrelu_with_noise_", "scaled_dot_product_attention"),
    }
)
"""torch's operations that draw. Its recurrent layers are not among them: their copies are not in training mode."""
_MAKE_LAYERS: Final = {name for name, kind in vars(nn).items() if hasattr(kind, "reset_parameters")}
_NAMES: Final = OPERATIONS | {
    *("dropout1d", "dropout2d", "dropout3d", "fractional_max_pool2d", "fractional_max_pool3d", "gumbel_softmax"),
    *("multi_head_attention_forward", "svd_lowrank", "pca_lowrank", "lobpcg", "SobolEngine", "sample", "rsample"),
    *("random_split", "RandomSampler", "DataLoader", "Transformer", "MultiheadAttention", "reset_parameters"),
    *(name for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")),
    *("manual_seed", "seed", "set_rng_state", "default_generator", "default_generators", "fork_rng", "ops"),
    *("train", "training=", *_MAKE_LAYERS),
}
"""What code names that may draw."""
DRAW_UNNAMED: Final = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, torch.jit.ScriptModule)
"""Modules whose call draws outside of training, or cannot be read."""
_OF_COPYING: Final = (
    *("__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__", "__new__"),
    *("append", "extend", "__setitem__"),
)


def shared_generators() -> tuple[torch.Generator, ...]:
    """Return the generators of this process that torch draws from where it is given none."""
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch is typed in part
    return (torch.default_generator, *(torch.cuda.default_generators if started else ()))


def shared_by_name() -> Mapping[str, Any]:
    """Return the shared generators, by each name with which code may draw from them."""
    return dict.fromkeys(_NAMES, shared_generators())


def save_generator(generator: torch.Generator) -> Undo:
    """Save the state of a generator."""
    before = generator.get_state()

    def restore() -> None:
        if not torch.equal(generator.get_state(), before):
            generator.set_state(before)

    return restore


@functools.cache
def copies_itself(kind: Any) -> bool:
    """Return whether copying an object calls what its class, one of the user's, defines for that."""
    return any(name in vars(base) for base in filter(is_users, kind.__mro__) for name in _OF_COPYING)


@contextmanager
def draws_undone(where: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Put back, on exit, what Python, NumPy and torch draw from where they are given no generator.

    Args:
        where: asked at both ends; where it says no, nothing is put back.
    """
    if not where():
        yield
        return
    python, numpy = SHARED_GENERATORS
    undo = [saved.save_python_random(python), saved.save_random_state(numpy), *map(save_generator, shared_generators())]
    try:
        yield
    finally:
        for restore in undo if where() else ():
            restore()


def is_alone() -> bool:
    """Return whether no other thread of Python's runs that may draw; ours have generators of their own."""
    own = threading.current_thread()
    return all(one is own or one.name.startswith("gatewatch-") for one in threading.enumerate())
