"""What a token of InfluxDB may do, found out without changing anything.

InfluxDB tells a token nothing about itself. It lists the buckets that the token may read, and the tokens where it may
read those; and it takes a write of no points wherever it would take one of some.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import urllib3

from collector.errors import GatewatchError

_TIMEOUT: Final = urllib3.Timeout(connect=5.0, read=10.0)
_OTHERS: Final = 5
"""Of the buckets that a token sees beside its own, so many are tried."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a token may do. What it may write without seeing it cannot be found out.

    Attributes:
        reads, writes: its own bucket.
        reads_too: names of other buckets that it may read.
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
        GatewatchError: it is not reached, or the token is unknown there.
    """
    with _Asking(url, org, token) as asking:
        listed = asking.get("/api/v2/buckets", limit="100", org=org)
        names = [str(one["name"]) for one in listed.get("buckets", ())]
        own = bucket.partition("/")[0]
        others = tuple(name for name in names if name not in (own, bucket))
        return Rights(
            reads=own in names or bucket in names,
            writes=asking.writes(bucket),
            reads_too=others,
            writes_too=tuple(name for name in others[:_OTHERS] if asking.writes(name)),
            tokens=bool(asking.get("/api/v2/authorizations").get("authorizations")),
        )


class _Asking:
    def __init__(self, url: str, org: str, token: str) -> None:
        self._url, self._org = url, org
        self._pool = urllib3.PoolManager(headers={"Authorization": f"Token {token}"}, timeout=_TIMEOUT, retries=False)

    def __enter__(self) -> _Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()

    def get(self, path: str, **fields: str) -> Any:
        """An answer; nothing where the token may not ask."""
        response = self._ask("GET", path, fields)
        if response.status in (403, 404):
            return {}
        try:
            return json.loads(response.data)
        except ValueError:
            raise GatewatchError(f"{self._url}: answers {response.status}, which is not InfluxDB 2") from None

    def writes(self, bucket: str) -> bool:
        return self._ask("POST", "/api/v2/write", {"org": self._org, "bucket": bucket}).status == 204

    def _ask(self, method: str, path: str, fields: dict[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            response = self._pool.request_encode_url(method, self._url + path, fields=fields)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise GatewatchError(f"{self._url}: no answer ({type(error).__name__})") from None
        if response.status == 401 and method == "GET":
            raise GatewatchError(f"{self._url}: the token is refused; see INFLUXDB_V2_TOKEN")
        return response


def _named(names: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
