"""Errors of InfluxDB over HTTP: whether the points are wrong, the configuration, or the moment."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import urllib3

from gatewatch.collector.errors import GatewatchError, WriteUnavailable
from gatewatch.collector.text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from influxdb_client.rest import ApiException


class Names(NamedTuple):
    """What error texts call the settings of an InfluxDB: the variables that they come from, or other words."""

    org: str = "INFLUXDB_V2_ORG"
    bucket: str = "INFLUXDB_V2_BUCKET"
    token: str = "INFLUXDB_V2_TOKEN"  # noqa: S105 - the name of a variable


@dataclass(eq=False)
class Refused(GatewatchError):  # noqa: N818 - named like those it becomes
    """InfluxDB did not carry out a request.

    Attributes:
        status: HTTP status; 0 where TLS failed.
        reason: one line, without the address.
        text: one line for people, with the address and what to do.
        points: whether the points are wrong, or the query.
        dropped: how many points the server says it left out while it stored the others; None where it stored none.
        retry_after: seconds, where the server asked for a pause.
    """

    status: int
    reason: str
    text: str
    points: bool = False
    dropped: int | None = None
    retry_after: float | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def transient(self) -> bool:
        """Whether a retry may succeed without anybody mending anything."""
        return self.status in _TRANSIENT or self.status >= 500

    def unavailable(self) -> WriteUnavailable:
        """Return the error that a store raises because of it."""
        return WriteUnavailable(str(self), self.retry_after, slow=not self.transient)


_TRANSIENT: Final = frozenset({408, 429})
_PARTIAL: Final = re.compile(r"partial write: (.*) dropped=(\d+)", re.DOTALL)
_UNPARSED: Final = re.compile(r"unable to parse '.*': (.*)", re.DOTALL)


def refusal(url: str, error: ApiException, names: Names | None) -> Refused:
    """Return the error for an answer of HTTP that is no success.

    Args:
        url: address of the server.
        error: of influxdb-client, with status, headers and body.
        names: of the settings that the text tells to mend; None: it names none.
    """
    status = int(error.status or 0)
    headers: Mapping[str, str] = error.headers or {}
    if not status:
        return Refused(
            status,
            "TLS failed",
            f"{url}: TLS failed ({one_line(error.reason, 300)}); see its certificate and the address",
        )
    try:
        answer = json.loads(error.body or b"")
        message, points = str(answer["message"]), "code" in answer and status in (400, 413, 422)
    except (ValueError, KeyError, TypeError):
        if status == 413:  # a proxy in front of InfluxDB says so in HTML
            return Refused(status, "the request is too large", url, points=True)
        if status not in _TRANSIENT and status < 500:
            return not_influxdb(url, status, headers.get("Location"))
        message, points = f"answers {status} {error.reason or ''}".strip(), False
    if points:
        return _refused_points(url, status, message)
    remedies = {} if names is None else _remedies(names)
    reason = one_line(message, 300)
    text = f"{url}: {reason}; {remedies[status]}" if status in remedies else f"{url}: {reason}"
    return Refused(status, reason, text, retry_after=_retry_after(headers.get("Retry-After")))


def _remedies(names: Names) -> dict[int, str]:
    return {
        401: f"see {names.token}",
        403: f"give the token of {names.token} the right to write the bucket",
        404: f"create it, or see {names.bucket} and {names.org}",
    }


def _refused_points(url: str, status: int, message: str) -> Refused:
    dropped = None
    if partial := _PARTIAL.search(message):
        # Of points past the retention it goes on with the oldest and the newest, which are not those of each line.
        message, dropped = partial[1].partition(" - oldest point ")[0], int(partial[2])
    elif unparsed := _UNPARSED.search(message):
        message = f"the line cannot be parsed: {unparsed[1]}"  # without the line itself, which may be long
    reason = one_line(message, 300)
    return Refused(status, reason, f"{url}: {reason}", points=True, dropped=dropped)


def not_influxdb(url: str, status: int, location: str | None = None) -> Refused:
    """Return the error for an answer that InfluxDB 2 would not give.

    Args:
        url: address of the server.
        status: HTTP status.
        location: where it redirects to, if it does.
    """
    leads = f" and leads to {one_line(location.partition('?')[0], 300)}" if location else ""
    reason = f"answers {status}{leads}, which is not InfluxDB 2; see the address"
    return Refused(status, reason, f"{url}: {reason}")


def no_answer(url: str, error: Exception, seconds: float) -> WriteUnavailable:
    """Return the error for a request that got no answer.

    Args:
        url: address of the server.
        error: of urllib3 or the system.
        seconds: timeout of the request.
    """
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        problem = "no connection"
    elif isinstance(error, urllib3.exceptions.TimeoutError):
        problem = f"no answer within {seconds:g} s"
    else:
        problem = f"the connection broke ({type(error).__name__})"
    return WriteUnavailable(f"{url}: {problem}; see that InfluxDB runs there")


def _retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header, which holds seconds or a date; None for none or rubbish."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
