"""How an InfluxDB is reached: timeout, TLS and proxy, by the variables that influxdb-client and other programs read."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from gatewatch.collector.environment import read_password, read_variable, whole_number
from gatewatch.collector.errors import ConfigError

_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy of HTTP.

    Attributes:
        url: `http://host:port` or `https://…`, without user and password.
        headers: that it gets: user and password.
        source: the variable that names it.
    """

    url: str
    headers: dict[str, str] = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class Connection:
    """How a server is reached.

    Attributes:
        timeout: seconds that any request may take; None: each its own.
        tls: what certificates are verified with; None where the address has no TLS.
        proxy: that requests go through; None: they go to the server itself.
        pool_size: connections that are kept; None: influxdb-client's default.
        basic: whether the token is a user and a password, `user:password`, for a proxy before the server.
    """

    timeout: float | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    proxy: Proxy | None = None
    pool_size: int | None = None
    basic: bool = False

    def arguments(self, *, has_token: bool) -> dict[str, Any]:
        """Return what InfluxDBClient is to be given by name."""
        given: dict[str, Any] = {"auth_basic": self.basic and has_token, "ssl_context": self.tls}
        if self.tls is not None:
            given["verify_ssl"] = self.tls.verify_mode != ssl.CERT_NONE
        if self.proxy is not None:
            given |= {"proxy": self.proxy.url, "proxy_headers": self.proxy.headers}
        if self.pool_size is not None:
            given["connection_pool_maxsize"] = self.pool_size
        return given


def read_connection(url: str) -> Connection:
    """Read from the environment how a server is reached.

    Args:
        url: of the server.

    Raises:
        ConfigError: a variable or the file that it names cannot be used; names it.
    """
    milliseconds = _number("INFLUXDB_V2_TIMEOUT", "milliseconds")
    return Connection(
        timeout=milliseconds and milliseconds / 1000,
        tls=_tls() if urlsplit(url).scheme == "https" else None,
        proxy=_proxy(url),
        pool_size=_number("INFLUXDB_V2_CONNECTION_POOL_MAXSIZE", "connections"),
        basic=_truth("INFLUXDB_V2_AUTH_BASIC", default=False),
    )


def _tls() -> ssl.SSLContext:
    verify = _truth("INFLUXDB_V2_VERIFY_SSL", default=True)
    own = read_variable("INFLUXDB_V2_SSL_CA_CERT")
    bundle = own or read_variable("REQUESTS_CA_BUNDLE")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies, and trusts nobody yet
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif bundle:
        try:
            path = Path(bundle).expanduser()
            context.load_verify_locations(*((None, path) if path.is_dir() else (path,)))
        except (OSError, RuntimeError, ValueError) as error:  # no such user or no home directory, too
            source = "INFLUXDB_V2_SSL_CA_CERT" if own else "REQUESTS_CA_BUNDLE"
            raise _unusable(source, bundle, error, "certificates in PEM") from None
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a server's own certificate may be named too
    else:
        context.load_default_certs()
    if certificate := read_variable("INFLUXDB_V2_CERT_FILE"):
        key = read_variable("INFLUXDB_V2_CERT_KEY_FILE")
        password = read_password("INFLUXDB_V2_CERT_KEY_PASSWORD")
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(
                Path(certificate).expanduser(), Path(key).expanduser() if key else None, lambda: password
            )
        except (OSError, RuntimeError, ValueError) as error:
            others = "INFLUXDB_V2_CERT_KEY_FILE and _CERT_KEY_PASSWORD"
            what = f"a certificate in PEM; see its key in {others} too"
            raise _unusable("INFLUXDB_V2_CERT_FILE", certificate, error, what) from None
    return context


def _unusable(source: str, file: str, error: Exception, what: str) -> ConfigError:
    match error:
        case ssl.SSLError() | ValueError():
            reason = "it holds none"
        case OSError():
            reason = error.strerror or "it cannot be read"
        case _:
            reason = "there is no such user"
    return ConfigError(f"{source}: {file} cannot be used: {reason}; name a file that holds {what}")


def _proxy(url: str) -> Proxy | None:
    """Return the proxy that leads to an address."""
    if own := read_variable("INFLUXDB_V2_PROXY"):
        return _parsed(own, "INFLUXDB_V2_PROXY")
    parts, proxies = urlsplit(url), getproxies()
    host = parts.hostname or ""
    named = next((name for name in (parts.scheme, "all") if proxies.get(name, "").strip()), None)
    # As most programs do, and curl not: a proxy on another machine cannot lead to this one.
    if named is None or _is_loopback(host) or proxy_bypass(parts.netloc) or proxy_bypass(host):
        return None
    return _parsed(proxies[named].strip(), f"{named.upper()}_PROXY")


def _parsed(address: str, source: str) -> Proxy:
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:  # it may hold a password: it is not shown
        raise ConfigError(f"{source}: it is not the address of a proxy; write it as http://host:port")
    headers = {}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = urllib3.make_headers(proxy_basic_auth=login)
    return Proxy(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", headers, source)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _truth(name: str, *, default: bool) -> bool:
    text = read_variable(name)
    if not text:
        return default
    if text.lower() not in _TRUE + _FALSE:
        raise ConfigError(f"{name}={text!r} is neither true nor false; set one of them")
    return text.lower() in _TRUE


def _number(name: str, unit: str) -> int | None:
    text = read_variable(name)
    if not text:
        return None
    number = whole_number(text)
    if number is None or not 1 <= number < 10**9:
        raise ConfigError(f"{name}={text!r} is not a number of {unit}; set a whole number from 1")
    return number
