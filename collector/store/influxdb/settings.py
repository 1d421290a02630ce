"""Settings of an InfluxDB: from the environment, and the token from a file too."""

from __future__ import annotations

from pathlib import Path

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import read_small_file


def read_setting(name: str) -> str:
    """Return the value of the variable INFLUXDB_V2_`name`.

    Raises:
        ConfigError: it is not set, or has a character that cannot be part of it; names it.
    """
    variable = f"INFLUXDB_V2_{name}"
    return checked(variable, read_variable(variable), "an InfluxDB store")


def read_token() -> str:
    """Return INFLUXDB_V2_TOKEN, or else the content of the file that INFLUXDB_V2_TOKEN_FILE names.

    Raises:
        ConfigError: there is none, or the file cannot be read; names it.
    """
    named = read_variable("INFLUXDB_V2_TOKEN_FILE")
    if read_variable("INFLUXDB_V2_TOKEN") or not named:
        return read_setting("TOKEN")
    return read_token_file(named, "INFLUXDB_V2_TOKEN_FILE", "set INFLUXDB_V2_TOKEN")


def read_token_file(file: str, source: str, otherwise: str = "name another file", *, pipes: bool = False) -> str:
    """Return the token that a file holds.

    Args:
        file: path; `~` is the home directory.
        source: what names the file, for errors.
        otherwise: for errors: what can be done beside putting a token into it.
        pipes: whether it may be a pipe, which is then waited for.

    Raises:
        ConfigError: it cannot be read or holds no token.
    """
    where = f"{source}: {file}"
    try:
        token = read_small_file(Path(file).expanduser(), pipes=pipes).decode("utf-8-sig").strip()
    except (OSError, RuntimeError, ValueError) as error:  # no home directory, not UTF-8, a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else "it is no file of text"
        raise ConfigError(f"{where} cannot be read: {reason}; name the file that holds the token") from None
    if not token:
        raise ConfigError(f"{where} is empty; put the token into it, or {otherwise}")
    return checked(where, token, "an InfluxDB store")


def checked(source: str, value: str, purpose: str) -> str:
    """Return a value from the environment or a file.

    Args:
        source: variable or file, for errors.
        value: what it holds.
        purpose: what needs it, for errors.

    Raises:
        ConfigError: it is empty, or has a character that cannot be part of it.
    """
    if not value:
        raise ConfigError(f"{source} is not set; {purpose} needs it in the environment")
    if not value.isprintable():
        raise ConfigError(f"{source} has a character that cannot be part of it; set it again")
    return value
