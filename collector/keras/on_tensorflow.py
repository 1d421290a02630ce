"""What of TensorFlow's own state a call of a Keras model changes."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.eager.polymorphic_function import eager_function_run
from tensorflow.python.ops import stateful_random_ops

from gatewatch.collector.runtime.object_state import ObjectState, Place, Visit

_SEED: Final = 20_000_003
"""TensorFlow's global seed during a look. A random operation counts its draws by its seeds, and nobody can set that
count back: under a seed of their own the looks count beside the training."""


class _Seeds:
    """The global seed of one look, and what it seeds: in the place of the functions of the same names."""

    def __init__(self) -> None:
        self.set_global_seed(_SEED)

    def set_global_seed(self, seed: int) -> None:
        self._seed, self._draws = seed, random.Random(seed)  # noqa: S311 - as TensorFlow does

    def global_seed(self) -> int:
        return self._seed

    def internal_operation_seed(self) -> int:
        return self._draws.randint(0, 2**31 - 1)


class _InLooks:
    """Stands for TensorFlow's switch that functions run uncompiled: on in the threads that look at a model, only.

    Attributes:
        threads: that look → their seeds.
        otherwise: what the switch was before.
    """

    def __init__(self) -> None:
        self.threads: dict[int, _Seeds] = {}
        self.otherwise = False

    def __bool__(self) -> bool:
        return threading.get_ident() in self.threads or self.otherwise


_IN_LOOKS: Final = _InLooks()


def _by_thread(name: str, own: Any) -> Any:
    def function(*arguments: Any) -> Any:
        seeds = _IN_LOOKS.threads.get(threading.get_ident())
        return own(*arguments) if seeds is None else getattr(seeds, name)(*arguments)

    return function


_SEEDED: Final = {n: getattr(context, n) for n in ("global_seed", "internal_operation_seed", "set_global_seed")}
_SEEDED_BY_THREAD: Final = {name: _by_thread(name, own) for name, own in _SEEDED.items()}


@contextmanager
def isolated() -> Iterator[None]:
    """While open, run functions uncompiled in this thread, and draw random numbers beside those of the training."""
    thread = threading.get_ident()
    outer = _IN_LOOKS.threads.get(thread)
    if not _IN_LOOKS.threads:
        _IN_LOOKS.otherwise = bool(eager_function_run.RUN_FUNCTIONS_EAGERLY)
    generator = stateful_random_ops.global_generator
    logger = tf.get_logger()
    _IN_LOOKS.threads[thread] = _Seeds()
    try:
        # Not tf.config.run_functions_eagerly, which holds for all threads.
        eager_function_run.RUN_FUNCTIONS_EAGERLY = _IN_LOOKS
        vars(context).update(_SEEDED_BY_THREAD)
        logger.addFilter(_says_nothing_of_functions)
        yield
    finally:
        if outer is None:
            _IN_LOOKS.threads.pop(thread, None)
        else:
            _IN_LOOKS.threads[thread] = outer
        if not _IN_LOOKS.threads:
            eager_function_run.RUN_FUNCTIONS_EAGERLY = _IN_LOOKS.otherwise
            vars(context).update(_SEEDED)
        stateful_random_ops.global_generator = generator
        logger.removeFilter(_says_nothing_of_functions)


def shared() -> Mapping[str, Any]:
    """Return what is shared in this process, by the name that code reaches it by."""
    return {"get_global_generator": stateful_random_ops.global_generator}


def _says_nothing_of_functions(record: logging.LogRecord) -> bool:
    """Leave out that vectorized_map compiles nevertheless."""
    return not str(record.msg).startswith("It looks like tf.function behavior was disabled")


def _follow_generator(state: ObjectState, generator: Any, place: Place) -> None:
    state.follow(generator.state, place)


def _save_variable(state: ObjectState, variable: Any, place: Place) -> None:
    for part in getattr(variable, "values", (variable,)):  # of each replica
        before = part.read_value()  # shares the memory: whoever assigns copies

        def restore(part: Any = part, before: Any = before) -> None:
            if _address(part.read_value()) != _address(before):
                part.assign(before)

        state.undo(restore)


def _address(tensor: Any) -> Any:
    return np.asarray(tensor).__array_interface__["data"]


KINDS: Final[Mapping[type, Visit]] = {tf.Variable: _save_variable, tf.random.Generator: _follow_generator}
CLASSES: Final = (tf.Module,)
