"""What a server's refusal means: whether the points are wrong, the configuration, or the moment."""

from __future__ import annotations

import email.utils
import json
import math
import re
import time
from typing import TYPE_CHECKING, Final

import urllib3

from gatewatch.collector.errors import GatewatchError, WriteUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from influxdb_client.rest import ApiException


class Refused(GatewatchError):  # noqa: N818 - named like those it becomes
    """The server's refusal.

    Attributes:
        status: of HTTP; 0 where it did not come to that.
        reason: one line.
        points: whether it is the points that are wrong.
        dropped: how many of them the server says it left out while it stored the others; None where it stored none.
        retry_after: seconds, where it asked for so many.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        text: str,
        *,
        points: bool = False,
        dropped: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason
        self.points = points
        self.dropped = dropped
        self.retry_after = retry_after

    @property
    def passing(self) -> bool:
        """Whether it may pass by itself, with nobody mending anything."""
        return self.status in _PASSING or self.status >= 500

    def unavailable(self) -> WriteUnavailable:
        """What a store raises that could not write or read because of it."""
        return WriteUnavailable(str(self), self.retry_after, slow=not self.passing)


_PASSING: Final = frozenset({408, 429})
_PARTIAL: Final = re.compile(r"partial write: (.*) dropped=(\d+)", re.DOTALL)
_UNPARSED: Final = re.compile(r"unable to parse '.*': (.*)", re.DOTALL)
_REMEDIES: Final[Mapping[int, str]] = {
    401: "see INFLUXDB_V2_TOKEN",
    403: "give the token of INFLUXDB_V2_TOKEN the right to write the bucket",
    404: "create it, or see INFLUXDB_V2_BUCKET and INFLUXDB_V2_ORG",
}


def refusal(url: str, error: ApiException) -> Refused:
    """What a server answered to a request that it did not carry out."""
    status = int(error.status or 0)
    headers: Mapping[str, str] = error.headers or {}
    if not status:
        return Refused(
            status, "TLS failed", f"{url}: TLS failed ({one_line(error.reason)}); see its certificate and the address"
        )
    try:
        answer = json.loads(error.body or b"")
        message, points = str(answer["message"]), "code" in answer and status in (400, 413, 422)
    except (ValueError, KeyError, TypeError):
        if status == 413:  # a proxy in front of InfluxDB says so in HTML
            return Refused(status, "the request is too large", url, points=True)
        if status not in _PASSING and status < 500:
            return stranger(url, status, headers.get("Location"))
        message, points = f"answers {status} {error.reason or ''}".strip(), False
    if points:
        return _refused_points(url, status, message)
    remedy = _REMEDIES.get(status)
    reason = one_line(message)
    text = f"{url}: {reason}; {remedy}" if remedy else f"{url}: {reason}"
    return Refused(status, reason, text, retry_after=_retry_after(headers.get("Retry-After")))


def _refused_points(url: str, status: int, message: str) -> Refused:
    dropped = None
    if partial := _PARTIAL.search(message):
        # Of points past the retention it goes on with the oldest and the newest, which are not those of each line.
        message, dropped = partial[1].partition(" - oldest point ")[0], int(partial[2])
    elif unparsed := _UNPARSED.search(message):
        message = f"the line cannot be parsed: {unparsed[1]}"  # without the line itself, which may be long
    reason = one_line(message)
    return Refused(status, reason, f"{url}: {reason}", points=True, dropped=dropped)


def stranger(url: str, status: int, location: str | None = None) -> Refused:
    """The answer of something that is no InfluxDB 2."""
    leads = f" and leads to {one_line(location.partition('?')[0])}" if location else ""
    reason = f"answers {status}{leads}, which is not InfluxDB 2; see the address"
    return Refused(status, reason, f"{url}: {reason}")


def one_line(text: object) -> str:
    """Foreign text as one line of bearable length."""
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else f"{line[:300]}…"


def connection_problem(error: Exception) -> str:
    """Why there was no answer."""
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "no connection"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "no answer in time"
    return f"the connection broke ({type(error).__name__})"


def _retry_after(header: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date; None for none or rubbish."""
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
