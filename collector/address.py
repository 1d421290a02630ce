"""The address of a server, as a person gives it."""

from __future__ import annotations

from urllib.parse import urlsplit

from gatewatch.collector.errors import ConfigError


def server_url(
    url: str,
    source: str,
    *,
    credential: str = "INFLUXDB_V2_TOKEN",
    what: str = "a URL",
    forms: str = "use http://host:port or https://host",
) -> str:
    """Return an address without white space around it and without a slash at its end.

    Args:
        url: the address.
        source: where it was given; errors name it.
        credential: the environment variable for what does not belong into an address.
        what, forms: what an error says that the address is not, and how one is written.

    Raises:
        ConfigError: it is not an HTTP address, or has a user, a password, a query or a fragment.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        shown = "the address" if set("@?#") & set(url) else repr(url)  # a user, a password or a query is not shown
        raise ConfigError(f"{source}: {shown} is not {what}; {forms}")
    bare = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"{source}: {bare} must come without user, password, query or fragment; the token is {credential}"
        )
    return bare
