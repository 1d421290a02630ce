"""The configuration file: TOML, optional, and no place for secrets."""

from __future__ import annotations

import os
import re
import tomllib
from email.errors import MessageError
from email.headerregistry import Address
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from gatewatch.collector.environment import read_variable
from gatewatch.collector.errors import ConfigError
from gatewatch.collector.files import checked_path, read_small_file
from gatewatch.collector.text import nearest, safe_repr

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FILE = "gatewatch.toml"
"""The file's name in the working directory; the environment variable GATEWATCH_CONFIG names another."""

_DEEP_KEY: Final = re.compile(r"\.(?:[^.,=\n]*\.){100}")
"""A key of a hundred tables, whose parsing takes memory by the square of that."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_known_keys(cls, table: object) -> object:
        unknown = next((key for key in table if key not in cls.model_fields), None) if isinstance(table, dict) else None
        if unknown is not None:
            allowed = ", ".join(cls.model_fields)
            raise PydanticCustomError("unknown_key", "{allowed}", {"key": unknown, "allowed": allowed})
        return table


class StoreSettings(_Table):
    """The table `[store]`: where points live."""

    url: str | None = None


class SpoolSettings(_Table):
    """The table `[spool]`: where points wait for the store, and how many may."""

    path: str | None = None
    max_mb: int = Field(default=1024, ge=1, le=2**30)


class JobsSettings(_Table):
    """The table `[jobs]`: when the jobs run, and where."""

    interval_seconds: float = Field(default=15.0, ge=1, le=3600)
    executor: str = Field(default="local", pattern=r"^(local|dask|dask://[^/\s]+)$")
    workers: int = Field(default=1, ge=1, le=256)
    state: str | None = None
    captures_per_pass: int = Field(default=2000, ge=100, le=1_000_000)
    false_alarm_rate: float = Field(default=0.05, ge=0.01, le=0.5)


def mail_address(text: str) -> str:
    """A mail address, where it is one that every server takes.

    Raises:
        ValueError: it is none.
    """
    try:
        address = Address(addr_spec=text)
        if address.addr_spec == text and address.username and address.domain and text.isascii() and text.isprintable():
            return text
    except (MessageError, ValueError, IndexError):
        pass
    raise ValueError(f"{safe_repr(text)} is no mail address; write it as name@host in ASCII")


MailAddress = Annotated[str, AfterValidator(mail_address)]


class MailSettings(_Table):
    """The table `[mail]`: the server that takes mails, and who gets them. The password is GATEWATCH_SMTP_PASSWORD."""

    host: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._:-]+$")
    port: int | None = Field(default=None, ge=1, le=65535)
    security: Literal["auto", "starttls", "tls", "none"] = "auto"
    user: str | None = None
    sender: MailAddress | None = None
    to: list[MailAddress] = []
    timeout_seconds: float = Field(default=10.0, gt=0, le=300)

    @model_validator(mode="after")
    def _can_send(self) -> Self:
        if self.to and self.host is None:
            raise ValueError("to is given and host is not; name the mail server in host")
        if self.to and self.sender is None and "@" not in (self.user or ""):
            raise ValueError("to is given and sender is not; name the address that the mails are from in sender")
        return self


class AlertRuleSettings(_Table):
    """A table `[[alerts.rules]]`: a rule of the user's own."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    measurement: str = Field(min_length=1)
    field: str = Field(min_length=1)
    where: dict[str, str | list[str]] = {}
    measure: Literal["value", "rise", "times_median"] = "value"
    above: float | None = None
    below: float | None = None
    recovery: float | None = None
    for_captures: int = Field(default=1, ge=1, le=100)
    within: int | None = Field(default=None, ge=1, le=100)
    severity: Literal["critical", "warning"] = "warning"
    summary: str = Field(default="", max_length=200)
    runbook: str = Field(default="", max_length=500)

    @model_validator(mode="after")
    def _is_a_rule(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError(f"the rule {self.name!r} compares with nothing; give above, below or both")
        if self.within is not None and self.within < self.for_captures:
            raise ValueError(f"the rule {self.name!r} asks for more captures (for_captures) than it looks at (within)")
        if self.recovery is not None and None not in (self.above, self.below):
            raise ValueError(f"the rule {self.name!r} has above and below: recovery cannot be told for both")
        past = (self.above is not None and self.recovery is not None and self.recovery > self.above) or (
            self.below is not None and self.recovery is not None and self.recovery < self.below
        )
        if past:
            raise ValueError(f"the rule {self.name!r} would recover where it fires; recovery lies on the healthy side")
        return self


class AlertSettings(_Table):
    """The table `[alerts]`: what is alerted on, and how often."""

    repeat_hours: float = Field(default=4.0, gt=0, le=168)
    group_wait_seconds: float = Field(default=30.0, ge=0, le=3600)
    group_interval_seconds: float = Field(default=300.0, ge=0, le=86400)
    lookback_hours: float = Field(default=24.0, gt=0, le=720)
    runbook: str = "docs/runbook.md"
    disable: list[str] = []
    rules: list[AlertRuleSettings] = []


class Settings(_Table):
    """Everything that the file may say."""

    store: StoreSettings = StoreSettings()
    spool: SpoolSettings = SpoolSettings()
    jobs: JobsSettings = JobsSettings()
    mail: MailSettings = MailSettings()
    alerts: AlertSettings = AlertSettings()


def load_settings(path: str | os.PathLike[str] | None = None) -> Settings:
    """The settings of a file: the argument, else GATEWATCH_CONFIG, else `gatewatch.toml` here; defaults without one.

    Raises:
        ConfigError: the named file is missing, is no TOML, or says what it cannot say; names file, key and remedy.
    """
    named = path or read_variable("GATEWATCH_CONFIG")
    file = checked_path(named or FILE, "GATEWATCH_CONFIG" if path is None else "the configuration")
    try:
        text = _text(read_small_file(file))
    except FileNotFoundError:
        if not named:
            return Settings()
        raise ConfigError(f"{file}: no such configuration file; create it or unset GATEWATCH_CONFIG") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text; save it as UTF-8"
        raise ConfigError(f"{file}: the configuration cannot be read: {reason}") from None
    try:
        return Settings.model_validate(_parsed(text))
    except ValidationError as error:
        # A key that is misspelt is missing too: the misspelling is said.
        first = min(error.errors(), key=lambda one: one["type"] != "unknown_key")
        raise ConfigError(f"{file}: {_line(first)}") from None
    except ValueError as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None


def _text(content: bytes) -> str:
    """Decode a file; Windows puts a mark of the encoding at its beginning.

    Raises:
        ValueError: it is not UTF-8. Some text in UTF-16 looks like UTF-8 with a NUL in every character.
    """
    text = content.decode("utf-8-sig")
    if "\0" in text:
        raise ValueError
    return text


def _parsed(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ValueError: it is none.
    """
    deep = "its tables and values are nested too deeply"
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    if any(map(_DEEP_KEY.search, lines)):
        raise ValueError(deep)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise ValueError(deep) from None
    except ValueError:
        raise ValueError("a number has too many digits") from None


def _line(error: ErrorDetails) -> str:
    place, message = [str(part) for part in error["loc"]], error["msg"].removeprefix("Value error, ")
    if error["type"] == "unknown_key":
        table = ".".join(part for part in place if not part.isdigit())
        key = error["ctx"]["key"]
        meant = nearest(key, message.split(", "))
        return f"unknown key {safe_repr(key)}{f' in [{table}]' if table else ''}; allowed: {message}{meant}"
    return f"{'.'.join(place)}: {message[0].lower()}{message[1:]}"
