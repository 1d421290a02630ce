"""The versions that decide what a score is: of Gatewatch's own code, and of what it computes with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any, Final, TypeVar

from gatewatch.collector.errors import GatewatchError

T = TypeVar("T")

GATEWATCH: Final = "gatewatch"
_LIBRARIES: Final = ("numpy", "scikit-learn")
_PACKAGES: Final = ("gatewatch.collector", "gatewatch.jobs")


@cache
def versions() -> dict[str, str]:
    """Return name → version, as this process has them; that of Gatewatch ends in a digest of its code."""
    found = {}
    for name in (GATEWATCH, *_LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return {**found, GATEWATCH: f"{found[GATEWATCH]}+{_digest_code()}"}


def _digest_code() -> str:
    digest = hashlib.sha256()
    for package in _PACKAGES:
        spec = util.find_spec(package)
        for folder in sorted(spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:8]


class OtherVersionsError(GatewatchError):
    """The process that was to do the work has other versions than the one that asked for it."""


def call_with(expected: Mapping[str, str], function: Callable[..., T], *args: Any) -> T:
    """Call a function if this process has the expected versions.

    Raises:
        OtherVersionsError: it has not.
    """
    if versions() != expected:
        raise OtherVersionsError(f"this process has {versions()}")
    return function(*args)
