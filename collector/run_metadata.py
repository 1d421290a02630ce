"""The metadata of a run: its id, the versions of the packages, its configuration, and the fingerprint of its probe."""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.text import one_line

_PACKAGES: Final = (
    *("gatewatch", "keras", "tensorflow", "tensorflow-cpu", "jax", "torch"),
    *("sb3-contrib", "lightning", "pytorch-lightning", "numpy"),
)


def new_run() -> str:
    """Make up a run's id from the time."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter, of those that are installed."""
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def config_text(config: Mapping[str, Any]) -> str:
    """Return a configuration as JSON; a value of a user's class that JSON cannot show is text."""
    shown = dict(config)
    for name, value in config.items():
        try:
            json.dumps(value, default=one_line, skipkeys=True)
        except Exception:  # a user's class may do anything
            shown[name] = one_line(value)
    return json.dumps(shown, default=one_line, skipkeys=True)


def fingerprint(arrays: Sequence[NDArray[Any]]) -> str | None:
    """Return the first 16 digits of the SHA-256 of shapes, types and values, or None where there are no arrays.

    It is equal for probes that are equal.
    """
    if not arrays:
        return None
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
