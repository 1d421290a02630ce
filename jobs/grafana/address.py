"""The address of a server, as a person gives it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from gatewatch.collector.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Address:
    """An address, in its parts.

    Attributes:
        scheme: http or https.
        host: in brackets where it is one of IPv6.
        port: None where it is not said.
        path: without slashes around it; empty where there is none.
    """

    scheme: str
    host: str
    port: int | None
    path: str

    @property
    def url(self) -> str:
        """The whole."""
        return (
            f"{self.scheme}://{self.host}{f':{self.port}' if self.port else ''}{f'/{self.path}' if self.path else ''}"
        )


def address(url: str, named: str, *, port: int, variable: str) -> Address:
    """The parts of an address.

    Args:
        named: where it was given.
        port: that such a server commonly has.
        variable: where its token belongs, which is not here.

    Raises:
        ConfigError: it is none, or has a user, a password, a query or a fragment.
    """
    forms = f"use http://host:{port} or https://host"
    try:
        parts = urlsplit(url.strip())
        number = parts.port
    except ValueError:
        raise ConfigError(f"{named}: not a URL; {forms}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = url.partition("?")[0].rpartition("@")[2]  # neither user, password nor query
        raise ConfigError(f"{named}: {shown!r} is not a URL; {forms}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    found = Address(parts.scheme, host, number, parts.path.strip("/"))
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"{named}: {found.url} must come without user, password, query or fragment; the token is {variable}"
        )
    return found
