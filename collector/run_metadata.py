"""The metadata of a run: its id, the versions of the packages, and the fingerprint of its probe."""

from __future__ import annotations

import hashlib
import platform
import secrets
from collections.abc import Iterable
from datetime import datetime
from importlib import metadata
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_PACKAGES: Final = ("gatewatch", "keras", "tensorflow", "tensorflow-cpu", "torch", "sb3-contrib", "numpy")


def new_run() -> str:
    """A run's id, made up from the time."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def versions() -> dict[str, str]:
    """Python's and the packages' that matter, of those that are there."""
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def fingerprint(arrays: Iterable[NDArray[Any]]) -> str:
    """The first 16 digits of the SHA-256 of shapes, types and values: two runs with it were looked at alike."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
