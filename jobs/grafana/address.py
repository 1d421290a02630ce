"""The address of a server, as a person gives it."""

from __future__ import annotations

from urllib.parse import urlsplit

from gatewatch.collector.errors import ConfigError


def server_url(url: str, source: str, token_variable: str) -> str:
    """Return an address without white space around it and without a slash at its end.

    Args:
        url: the address.
        source: where it was given; errors name it.
        token_variable: the environment variable for the server's token, which does not belong into an address.

    Raises:
        ConfigError: it is not an HTTP address, or has a user, a password, a query or a fragment.
    """
    forms = "use http://host:port or https://host"
    try:
        parts = urlsplit(url.strip())
        _ = parts.port
    except ValueError:
        raise ConfigError(f"{source}: not a URL; {forms}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = url.partition("?")[0].rpartition("@")[2]  # neither user, password nor query
        raise ConfigError(f"{source}: {shown!r} is not a URL; {forms}")
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"{source}: {bare} must come without user, password, query or fragment; the token is {token_variable}"
        )
    return bare
