"""Errors of InfluxDB over HTTP: whether the points are wrong, the configuration, or the moment."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import urllib3

from gatewatch.collector.errors import ConfigError, GatewatchError, WriteUnavailable
from gatewatch.collector.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from influxdb_client.rest import ApiException

    from gatewatch.collector.store.influxdb.connection import Proxy
    from gatewatch.collector.store.influxdb.http_pools import HttpFailure


class Names(NamedTuple):
    """What error texts call the settings of an InfluxDB: the variables that they come from, or other words."""

    org: str = "INFLUXDB_V2_ORG"
    bucket: str = "INFLUXDB_V2_BUCKET"
    token: str = "INFLUXDB_V2_TOKEN"  # noqa: S105 - the name of a variable


@dataclass(eq=False)
class Refused(GatewatchError):  # noqa: N818 - named like those it becomes
    """InfluxDB did not carry out a request.

    Attributes:
        url: address of the server.
        status: HTTP status; 0 where TLS failed.
        reason: one line, without the address.
        remedy: what to do, where the reason does not say it.
        points: whether the points are wrong, or the query.
        answered_by: who it was, by the form of the answer.
        dropped: how many points the server says it left out while it stored the others; None where it stored none.
        answer: the whole message, where points are wrong.
        retry_after: seconds, where the server asked for a pause.
    """

    url: str
    status: int
    reason: str
    remedy: str = ""
    points: bool = False
    answered_by: Literal["influxdb", "another", "unknown"] = "unknown"
    dropped: int | None = None
    answer: str = field(default="", repr=False)
    retry_after: float | None = None

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}{'; ' if self.remedy else ''}{self.remedy}"

    @property
    def transient(self) -> bool:
        """Whether a retry may succeed without anybody mending anything."""
        return self.status in TRANSIENT or self.status >= 500

    def as_error(self) -> ConfigError | WriteUnavailable:
        """Return the error for a question that was refused: a wrong token or a missing bucket, or the moment."""
        return ConfigError(str(self)) if self.status in (401, 403, 404) else self.unavailable()

    def unavailable(self) -> WriteUnavailable:
        """Return the error that a store raises because of it."""
        answered = self.status not in (0, 429)  # too many requests are nothing that a line could be the reason of
        return WriteUnavailable(str(self), self.retry_after, slow=not self.transient, answered=answered)


TRANSIENT: Final = frozenset({408, 429, 502, 503, 504})
"""Of HTTP: what a server answers that is busy, and a proxy whose server is away."""
_PARTIAL: Final = re.compile(r"partial write: (.*) dropped=(\d+)", re.DOTALL)
_UNPARSED: Final = re.compile(r"unable to parse '.*': (.*)", re.DOTALL)


def refusal(url: str, error: ApiException | HttpFailure, names: Names | None, proxy: Proxy | None = None) -> Refused:
    """Return the error for an answer of HTTP that is no success.

    Args:
        url: address of the server.
        error: the answer, or the failure of TLS, which influxdb-client raises.
        names: of the settings that the text tells to mend; None: it names none.
        proxy: that the request went through.
    """
    status = int(error.status or 0)
    headers: Mapping[str, str] = error.headers or {}
    if not status:
        problem = one_line(error.reason, 300)
        return Refused(url, status, f"TLS failed: {problem}", _tls_remedy(problem))
    if status == 407 and proxy is not None:
        return _refused_by(proxy, url, status)
    try:
        answer = json.loads(error.body or b"")
        message, genuine = str(answer["message"]), "code" in answer
    except (ValueError, KeyError, TypeError, RecursionError):
        if status == 413:  # a proxy in front of InfluxDB says so in HTML
            return Refused(url, status, "the request is too large", points=True)
        if status == 400 and b"SSL certificate" in (error.body or b""):  # as nginx says it
            reason = "it refuses the certificate of the connection"
            return Refused(url, status, reason, _CLIENT_CERTIFICATE, answered_by="another")
        if status == 403 and proxy is not None:
            return _refused_by(proxy, url, status)
        if status not in TRANSIENT and status < 500:
            return not_influxdb(url, status, headers.get("Location"))
        message, genuine = f"answers {status} {error.reason or ''}".strip(), False
    if genuine and status in (400, 413, 422):
        return _refused_points(url, status, message)
    remedies = {
        401: "see {0.token}",
        403: "give the token of {0.token} the right to write the bucket",
        404: "create it, or see {0.bucket} and {0.org}",
    }
    remedy = remedies.get(status, "").format(names) if names else ""
    retry_after = _retry_after(headers.get("Retry-After"))
    by: Literal["influxdb", "unknown"] = "influxdb" if genuine else "unknown"
    return Refused(url, status, one_line(message, 300), remedy, retry_after=retry_after, answered_by=by)


def _refused_points(url: str, status: int, message: str) -> Refused:
    dropped, answer = None, message
    if partial := _PARTIAL.search(message):
        # Of points past the retention it goes on with the oldest and the newest, which are not those of each line.
        message, dropped = partial[1].partition(" - oldest point ")[0], int(partial[2])
    elif unparsed := _UNPARSED.search(message):
        message = f"the line cannot be parsed: {unparsed[1]}"  # without the line itself, which may be long
    reason = one_line(message, 300)
    return Refused(url, status, reason, points=True, answered_by="influxdb", dropped=dropped, answer=answer)


def not_influxdb(url: str, status: int, location: str | None = None) -> Refused:
    """Return the error for an answer that InfluxDB 2 would not give.

    Args:
        url: address of the server.
        status: HTTP status.
        location: where it redirects to, if it does.
    """
    leads = f" and leads to {one_line(location.partition('?')[0], 300)}" if location else ""
    reason = f"answers {status}{leads}, which is not InfluxDB 2; see the address"
    return Refused(url, status, reason, answered_by="another")


def no_answer(url: str, error: Exception, seconds: float, proxy: Proxy | None = None) -> Refused | WriteUnavailable:
    """Return the error for a request that got no answer.

    Args:
        url: address of the server.
        error: of urllib3 or the system.
        seconds: timeout of the request.
        proxy: that the request went through.
    """
    through = f" through the proxy {proxy.url} of {proxy.source}" if proxy else ""
    if proxy and isinstance(error, urllib3.exceptions.ProxyError):
        if answered := _TUNNEL.search(str(error.original_error)):
            refused = _refused_by(proxy, url, int(answered[1]))
            return refused.unavailable() if refused.transient else refused
        problem = f"the proxy {proxy.url} does not answer ({type(error.original_error).__name__}); see {proxy.source}"
        return WriteUnavailable(f"{url}: {problem}, or name the server in NO_PROXY")
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        problem = "no connection"
    elif isinstance(error, urllib3.exceptions.TimeoutError):
        problem = f"no answer within {seconds:g} s"
    else:
        problem = f"the connection broke ({type(error).__name__})"
    return WriteUnavailable(f"{url}: {problem}{through}; see that InfluxDB runs there")


def _refused_by(proxy: Proxy, url: str, status: int) -> Refused:
    reason = f"the proxy {proxy.url} answers {status}"
    if status == 407:
        remedy = f"it wants a user and a password: write {proxy.source} as http://user:password@host:port"
    elif status in TRANSIENT or status >= 500:
        remedy = "see that InfluxDB runs there"
    else:
        remedy = f"see {proxy.source}, or name the server in NO_PROXY"
    return Refused(url, status, reason, remedy, answered_by="another")


def _tls_remedy(problem: str) -> str:
    """Return what to do about a failure of TLS, by the words of OpenSSL and Python."""
    for words, remedy in _TLS_REMEDIES:
        if any(word in problem for word in words):
            return remedy
    return "see the address and the server's certificate"


_CLIENT_CERTIFICATE: Final = (
    "it may want a certificate of yours: see INFLUXDB_V2_CERT_FILE and INFLUXDB_V2_CERT_KEY_FILE"
)
_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})")
_TLS_REMEDIES: Final = (
    (
        ("Hostname mismatch", "IP address mismatch", "doesn't match"),
        "use the name that its certificate is for in the address",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "name the certificate of who signed it, in PEM, in INFLUXDB_V2_SSL_CA_CERT (or REQUESTS_CA_BUNDLE), or set"
        " INFLUXDB_V2_VERIFY_SSL=false to trust any",
    ),
    (("WRONG_VERSION_NUMBER", "HTTP_REQUEST"), "it does not speak TLS there: use http:// or another port"),
    (
        ("alert", "EOF occurred"),  # some say why they hang up
        _CLIENT_CERTIFICATE,
    ),
)


def _retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date; None for none or rubbish."""
    if not header:
        return None
    with suppress(ValueError):
        seconds = float(header)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        return urllib3.Retry().parse_retry_after(header)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None
