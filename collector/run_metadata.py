"""The metadata of a run: its id, the versions of the packages, its configuration, and the fingerprint of its probe."""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gatewatch.collector.errors import ConfigError, reason_of
from gatewatch.collector.text import one_line, safe_repr

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

AsArray = Callable[[Any], NDArray[Any] | None]
"""Returns a tensor or an array as an array, and None for anything else."""

_PACKAGES: Final = (
    *("gatewatch", "keras", "tensorflow", "tensorflow-cpu", "jax", "torch"),
    *("sb3-contrib", "lightning", "pytorch-lightning", "numpy"),
)

MOST_CONFIG: Final = 16_384
"""Characters of JSON of a user's own settings: with all else a run's configuration stays below the 64 kB that InfluxDB
takes in a field."""
_DEEPEST: Final = 8


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


def check_config(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a user's own settings as JSON can hold them: numbers of NumPy as numbers, what is no JSON as text.

    Raises:
        ConfigError: they are no mapping, or too long.
    """
    if config is None:
        return None
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"config={safe_repr(config)}: must be a mapping, such as {{'units': 24}}; "
            "vars() makes one of an argparse.Namespace, dataclasses.asdict() of a dataclass"
        )
    try:
        settings = {one_line(name): _as_json(value) for name, value in config.items()}
        length = len(json.dumps(settings))
    except Exception as error:  # a user's class may do anything
        raise ConfigError(f"config={safe_repr(config)}: cannot be read ({reason_of(error)})") from None
    if length > MOST_CONFIG:
        raise ConfigError(f"config: {length:,} characters of JSON, at most {MOST_CONFIG:,} are allowed: leave out data")
    return settings


def _as_json(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return _as_json(value.item(), depth + 1) if depth < _DEEPEST else one_line(value)
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {one_line(name): _as_json(part, depth + 1) for name, part in value.items()}
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        return [_as_json(part, depth + 1) for part in value]
    return one_line(value)


def fingerprint(probe: Any, as_array: AsArray) -> str | None:
    """Return the first 16 digits of the SHA-256 of a probe, or None where it has neither arrays nor texts.

    It is equal for probes that are equal, in each process: arrays count with shape, type and values, texts as UTF-8, in
    arrays and in nested lists and mappings, whose names count too. Of an object that is no text, number or list of
    such, only the type counts.

    Args:
        probe: arrays, tensors or texts, or nested lists, tuples and mappings of such.
        as_array: of the framework.
    """
    digest = hashlib.sha256()
    return digest.hexdigest()[:16] if _add_part(digest, probe, as_array) else None


def _add_part(digest: Hash, part: Any, as_array: AsArray) -> bool:
    """Add a part of a probe; return whether there was an array or a text in it."""
    if isinstance(part, str | bytes):
        _add_value(digest, part)
        return True
    if (array := as_array(part)) is not None:
        _add_array(digest, array)
        return True
    if isinstance(part, Mapping):
        entries = sorted(((str(name), value) for name, value in part.items()), key=itemgetter(0))
    else:
        entries = [(str(at), value) for at, value in enumerate(part)] if isinstance(part, list | tuple) else []
    found = False
    for name, value in entries:
        _add(digest, "name", name.encode(errors="surrogatepass"))
        found |= _add_part(digest, value, as_array)
    return found


def _add_array(digest: Hash, array: NDArray[Any]) -> None:
    kind = array.dtype
    if kind.hasobject or kind.names or kind.kind in "US":  # their bytes are addresses, gaps, or of the longest text
        digest.update(f"{array.shape}values".encode())
        for value in array.ravel().tolist():
            _add_value(digest, value)
    else:
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())


def _add_value(digest: Hash, value: Any) -> None:
    """Add an element of an array of objects."""
    match value:
        case str():
            _add(digest, "text", value.encode(errors="surrogatepass"))
        case bytes():
            _add(digest, "text", value)
        case np.ndarray():
            _add_array(digest, value)
        case np.generic():
            _add_array(digest, np.asarray(value))
        case bool() | float() | complex() | None:
            _add(digest, "number", repr(value).encode())
        case int():
            _add(digest, "number", f"{value:x}".encode())  # of any size, as no decimal is
        case list() | tuple():
            _add(digest, "list", str(len(value)).encode())
            for each in value:
                _add_value(digest, each)
        case dict():
            _add(digest, "dict", str(len(value)).encode())
            for name in sorted(value, key=str):
                _add_value(digest, name)
                _add_value(digest, value[name])
        case _:
            _add(digest, "type", f"{type(value).__module__}.{type(value).__qualname__}".encode())


def _add(digest: Hash, kind: str, content: bytes) -> None:
    digest.update(f"{kind}{len(content)}:".encode())
    digest.update(content)
