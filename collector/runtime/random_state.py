"""The random states that a whole process shares: Python's and NumPy's. Those of a framework are its adapter's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Put back, on exit, the global states of `random` and of `numpy.random`."""
    python, numpy = random.getstate(), np.random.get_state(legacy=False)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
