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


class _InLooks:
    """Stands for TensorFlow's switch that functions run uncompiled: on in the threads that look at a model, only.

    Attributes:
        threads: that look.
        otherwise: what the switch was before.
    """

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.otherwise = False

    def __bool__(self) -> bool:
        return threading.get_ident() in self.threads or self.otherwise


_IN_LOOKS: Final = _InLooks()


@contextmanager
def isolated() -> Iterator[None]:
    """While open, run functions uncompiled in this thread, and draw random numbers beside those of the training."""
    thread = threading.get_ident()
    inside_another = thread in _IN_LOOKS.threads
    if not _IN_LOOKS.threads:
        _IN_LOOKS.otherwise = bool(eager_function_run.RUN_FUNCTIONS_EAGERLY)
    seeds = vars(context.context())
    before = {name: seeds[name] for name in ("_seed", "_rng") if name in seeds}
    generator = stateful_random_ops.global_generator
    logger = tf.get_logger()
    _IN_LOOKS.threads.add(thread)
    try:
        # Not tf.config.run_functions_eagerly, which holds for all threads.
        eager_function_run.RUN_FUNCTIONS_EAGERLY = _IN_LOOKS
        seeds.update(_seed=_SEED, _rng=random.Random(_SEED))  # noqa: S311 - tf.random.set_seed forgets counts
        logger.addFilter(_says_nothing_of_functions)
        yield
    finally:
        if not inside_another:
            _IN_LOOKS.threads.discard(thread)
        if not _IN_LOOKS.threads:
            eager_function_run.RUN_FUNCTIONS_EAGERLY = _IN_LOOKS.otherwise
        seeds.pop("_rng", None)
        seeds.update(before)
        stateful_random_ops.global_generator = generator
        logger.removeFilter(_says_nothing_of_functions)


def shared() -> Mapping[str, Any]:
    """Return what is shared in this process, by name."""
    return {"tf.random.get_global_generator()": stateful_random_ops.global_generator}


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
