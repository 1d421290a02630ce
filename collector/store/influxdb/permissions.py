"""What a token of InfluxDB may do, found out without changing anything.

InfluxDB tells a token nothing about itself. It lists the buckets that the token may read, and the tokens where it may
read those; and it takes a write of no points wherever it would take one of some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gatewatch.collector.store.influxdb.bucket import org_query, visible
from gatewatch.collector.store.influxdb.http_errors import Refused

if TYPE_CHECKING:
    from gatewatch.collector.store.influxdb.client import Client

HISTORY_SUFFIX: Final = "_hourly"
"""Of the bucket that holds the hourly aggregates of another."""
LISTED: Final = 100
"""Buckets that are asked for at once, which is as many as InfluxDB gives."""
_OTHERS: Final = 5
"""Maximum number of other buckets for which a token's permissions are tried."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a token may do. What it may write without seeing it cannot be found out.

    Attributes:
        reads, writes: its own bucket.
        reads_too: names of other buckets that it may read, without that of its own hourly aggregates.
        writes_too: those of them that it was seen to be allowed to write.
        tokens: whether it may read tokens, as only one does that may do everything.
    """

    reads: bool
    writes: bool
    reads_too: tuple[str, ...] = ()
    writes_too: tuple[str, ...] = ()
    tokens: bool = False

    def excess(self) -> str:
        """Describe what it may do beyond its own bucket; empty where nothing was seen."""
        parts = [f"reads {_listed(self.reads_too)} too"] if self.reads_too else []
        parts += [f"writes {_listed(self.writes_too)} too"] if self.writes_too else []
        parts += ["reads every token"] if self.tokens else []
        return ", ".join(parts)


def permissions(client: Client) -> Permissions:
    """Find out what the token of a client may do.

    Raises:
        ConfigError: the token is unknown there.
        GatewatchError: the server does not answer as it should.
    """
    own = client.find_bucket()
    name = own.name if own else client.bucket
    buckets = visible(client, "/api/v2/buckets", "buckets", ("name",), limit=LISTED, **org_query(client))
    others = tuple(each["name"] for each in buckets if each["name"] not in (name, name + HISTORY_SUFFIX))
    return Permissions(
        reads=own is not None,
        writes=_writes(client, client.bucket),
        reads_too=others,
        writes_too=tuple(name for name in others[:_OTHERS] if _writes(client, name)),
        tokens=bool(visible(client, "/api/v2/authorizations", "authorizations")),
    )


def _writes(client: Client, bucket: str) -> bool:
    try:
        client.write(b"", bucket)
    except Refused:
        return False
    return True


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
