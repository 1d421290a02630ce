"""What a token of InfluxDB may do, found out without changing anything.

InfluxDB tells a token nothing about itself. It lists the buckets that the token may read, and the tokens where it may
read those; and it takes a write of no points wherever it would take one of some.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import urllib3

from gatewatch.collector.errors import ConfigError, GatewatchError

ANSWER_S: Final = 10.0
"""Seconds that a server may take for an answer."""
HISTORY_SUFFIX: Final = "_hourly"
"""Of the bucket that holds the hourly aggregates of another."""
LISTED: Final = 100
"""Buckets that are asked for at once, which is as many as InfluxDB gives."""
_CONNECT_S: Final = 5.0
_OTHERS: Final = 5
"""Of the buckets that a token sees beside its own, so many are tried."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a token may do. What it may write without seeing it cannot be found out.

    Attributes:
        reads, writes: its own bucket.
        reads_too: names of other buckets that it may read; that of its hourly aggregates is none.
        writes_too: those of them that it was seen to be allowed to write.
        tokens: whether it may read tokens, as only one does that may do everything.
    """

    reads: bool
    writes: bool
    reads_too: tuple[str, ...] = ()
    writes_too: tuple[str, ...] = ()
    tokens: bool = False

    def excess(self) -> str:
        """What it may do beyond its own bucket, in words; empty where nothing was seen."""
        parts = [f"reads {_named(self.reads_too)} too"] if self.reads_too else []
        parts += [f"writes {_named(self.writes_too)} too"] if self.writes_too else []
        parts += ["reads every token"] if self.tokens else []
        return ", ".join(parts)


def rights(url: str, org: str, bucket: str, token: str) -> Rights:
    """What the token may do in an InfluxDB.

    Raises:
        ConfigError: the token is unknown there.
        GatewatchError: it does not answer as it should.
    """
    own = {bucket, bucket.partition("/")[0]}
    ours = own | {name + HISTORY_SUFFIX for name in own}
    with _Asking(url, org, token) as asking:
        others = tuple(name for name in asking.buckets(limit=str(LISTED)) if name not in ours)
        return Rights(
            reads=any(asking.buckets(name=name) for name in own),
            writes=asking.writes(bucket),
            reads_too=others,
            writes_too=tuple(name for name in others[:_OTHERS] if asking.writes(name)),
            tokens=bool(asking.get("/api/v2/authorizations").get("authorizations")),
        )


def see_answer(url: str, seconds: float | None = None) -> None:
    """See that a server answers, whatever it says.

    Args:
        url: its address.
        seconds: that it may take; None for the default.

    Raises:
        GatewatchError: it does not, or not in time.
    """
    with _Asking(url, "", "", seconds) as asking:
        asking.ask("GET", "/ping", {})


class _Asking:
    def __init__(self, url: str, org: str, token: str, seconds: float | None = None) -> None:
        self._url, self._org, self._seconds = url, org, seconds or ANSWER_S
        self._pool = urllib3.PoolManager(
            headers={"Authorization": f"Token {token}"} if token else None,
            timeout=urllib3.Timeout(connect=min(_CONNECT_S, self._seconds), total=self._seconds),
            retries=False,
        )

    def __enter__(self) -> _Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()

    def buckets(self, **fields: str) -> list[str]:
        """The names of those that the token may read."""
        return [str(one["name"]) for one in self.get("/api/v2/buckets", org=self._org, **fields).get("buckets", ())]

    def get(self, path: str, **fields: str) -> Any:
        """An answer; nothing where the token may not ask."""
        response = self.ask("GET", path, fields)
        if response.status == 401:
            raise ConfigError(f"{self._url}: the token is refused; see INFLUXDB_V2_TOKEN")
        if response.status >= 500:
            raise GatewatchError(f"{self._url}: answers {response.status}; see that InfluxDB is well")
        if response.status in (403, 404):
            return {}
        try:
            return json.loads(response.data)
        except ValueError:
            raise GatewatchError(f"{self._url}: answers {response.status}, which is not InfluxDB 2") from None

    def writes(self, bucket: str) -> bool:
        return self.ask("POST", "/api/v2/write", {"org": self._org, "bucket": bucket}).status == 204

    def ask(self, method: str, path: str, fields: dict[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request_encode_url(method, self._url + path, fields=fields)
        except urllib3.exceptions.NewConnectionError:
            raise GatewatchError(f"{self._url}: no connection; see that InfluxDB runs there") from None
        except urllib3.exceptions.TimeoutError:
            raise GatewatchError(
                f"{self._url}: no answer within {self._seconds:g} s; see that InfluxDB runs there and is well"
            ) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise GatewatchError(f"{self._url}: no answer ({type(error).__name__})") from None


def _named(names: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
