"""The configuration file: TOML, optional, and no place for secrets."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from collector.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FILE = "gatewatch.toml"
"""The file's name in the working directory; the environment variable GATEWATCH_CONFIG names another."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StoreSettings(_Table):
    """The table `[store]`: where points live."""

    url: str | None = None


class SpoolSettings(_Table):
    """The table `[spool]`: where points wait for the store, and how many may."""

    path: str | None = None
    max_mb: int = Field(default=1024, ge=1)


class JobsSettings(_Table):
    """The table `[jobs]`: when the jobs run, and where."""

    interval_seconds: float = Field(default=15.0, ge=1, le=3600)
    executor: str = Field(default="local", pattern=r"^(local|dask|dask://[^/\s]+)$")
    workers: int = Field(default=1, ge=1, le=256)
    state: str | None = None
    captures_per_pass: int = Field(default=2000, ge=100)


class Settings(_Table):
    """Everything that the file may say."""

    store: StoreSettings = StoreSettings()
    spool: SpoolSettings = SpoolSettings()
    jobs: JobsSettings = JobsSettings()


def load_settings(path: str | os.PathLike[str] | None = None) -> Settings:
    """The settings of a file: the argument, else GATEWATCH_CONFIG, else `gatewatch.toml` here; defaults without one.

    Raises:
        ConfigError: the named file is missing, is no TOML, or says what it cannot say; names file, key and remedy.
    """
    named = path or os.environ.get("GATEWATCH_CONFIG")
    file = Path(named or FILE)
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError:
        if not named:
            return Settings()
        raise ConfigError(f"{file}: no such configuration file; create it or unset GATEWATCH_CONFIG") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{file}: the configuration cannot be read: {reason}") from None
    try:
        return Settings.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None
    except ValidationError as error:
        raise ConfigError(f"{file}: {_line(error.errors()[0])}") from None


def _line(error: ErrorDetails) -> str:
    *tables, name = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        model: type[BaseModel] = Settings
        for table in tables:
            annotation = model.model_fields[table].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                model = annotation
        where = f" in [{'.'.join(tables)}]" if tables else ""
        return f"unknown key {name!r}{where}; allowed: {', '.join(model.model_fields)}"
    return f"{'.'.join([*tables, name])}: {error['msg'][0].lower()}{error['msg'][1:]}"
