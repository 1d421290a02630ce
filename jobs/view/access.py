"""Who may read the page. Pure: the headers of a request in, yes or no out.

On the loopback address everyone on this machine may. A page of another site must not, by a name of its own that it lets
point to this machine (DNS rebinding): so the request must name this machine. Elsewhere a token is needed.
"""

from __future__ import annotations

import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

_COOKIE: Final = "gatewatch"
"""Name of the cookie, to which the port is added: cookies do not tell ports apart."""


def is_loopback(host: str) -> bool:
    """Return whether a name or an address is that of this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_this_machine(header: str | None) -> bool:
    """Return whether the header `Host` is a loopback address or `localhost`, with any port, which ssh may forward."""
    try:
        host = urlsplit(f"//{header or ''}").hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)


def has_token(token: str, given: str | None) -> bool:
    """Return whether the token that was given is the right one, in a time that does not tell how much of it is."""
    return given is not None and hmac.compare_digest(token.encode(), given.encode())


def cookie_of(header: str | None, port: int) -> str | None:
    """Return the token that the header `Cookie` holds for the server of a port; None where it holds none."""
    try:
        cookies = SimpleCookie(header or "")
    except CookieError:
        return None
    found = cookies.get(f"{_COOKIE}-{port}")
    return found.value if found else None


def cookie_for(token: str, port: int) -> str:
    """Return the header `Set-Cookie` that keeps a token in the browser: no script reads it, no other site sends it."""
    return f"{_COOKIE}-{port}={token}; HttpOnly; SameSite=Strict; Path=/"
