"""Connections of urllib3 whose answers are bounded in time and size, whatever a server sends.

A timeout of urllib3 bounds the wait for the next bytes: an answer that comes a byte at a time, or without end, has no
bound at all. Here it bounds the whole answer, or each part of one that is read as it arrives: see `renew`.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

import urllib3

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import WriteableBuffer

READ_BYTES: Final = 2**16
LARGEST_ANSWER: Final = 8 * 2**20
"""Bytes of an answer that is read whole; of more, no more is read. InfluxDB names each line that it cannot parse."""
LARGEST_PART: Final = 64 * 2**20
"""Bytes of a part of an answer that is read as it arrives: a message, a row."""


class HttpFailure(Exception):  # noqa: N818 - an answer, and no error of this program
    """The status of an answer says that the request failed.

    Attributes:
        status, reason, headers: of the answer.
        body: its content, the first `LARGEST_ANSWER` bytes.
    """

    def __init__(self, status: int, reason: str | None, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.reason, self.headers, self.body = status, reason, headers, body
        super().__init__(f"{status} {reason}")


class _BoundedReader(io.RawIOBase):
    """Reads an answer from a socket until it takes too long, or becomes too large.

    Args:
        raw: reads the socket, and is closed with this.
        sock: the socket, whose timeout is that of the answer.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw, self._sock = raw, sock
        self._seconds = sock.gettimeout()
        self.renew()

    def renew(self) -> None:
        """Count time and bytes anew: a part of the answer is complete."""
        self._began, self._bytes = time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        """See `io.RawIOBase`.

        Raises:
            TimeoutError: the answer, or a part of it, takes too long.
            OSError: it is too large; or the connection broke.
        """
        if self._bytes > LARGEST_PART:
            raise OSError("the answer is too large")
        if self._seconds is None:
            return self._count(self._raw.readinto(buffer))
        left = self._began + self._seconds - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer takes too long")
        self._sock.settimeout(left)
        try:
            return self._count(self._raw.readinto(buffer))
        finally:
            self._sock.settimeout(self._seconds)  # which holds for the next request too

    def _count(self, received: int | None) -> int | None:
        self._bytes += received or 0
        return received

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def begin(self) -> None:
        super().begin()
        # urllib3 would log headers that it cannot parse with a traceback, and go on.
        self.msg.defects.clear()
        self.msg.set_payload("")


class _Bounded(http.client.HTTPConnection):
    """Gives connections of urllib3 bounded answers; the timeout counts from the end of the request."""

    reader: _BoundedReader | None = None

    def response_class(self, sock: socket.socket, *arguments: Any, **options: Any) -> _Response:  # type: ignore[override]  # called like a class
        response = _Response(sock, *arguments, **options)
        self.reader = _BoundedReader(response.fp.detach(), sock)
        response.fp = io.BufferedReader(self.reader)
        return response


class _Connection(_Bounded, urllib3.connection.HTTPConnection):
    pass


class _SecureConnection(_Bounded, urllib3.connection.HTTPSConnection):
    pass


class _SilentConnection(_SecureConnection):
    """A connection without verification, as the user has chosen: urllib3 would warn at each, past all filters."""

    def connect(self) -> None:
        super().connect()
        self.is_verified = True


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection

    def urlopen(self, *arguments: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        """See urllib3. An answer is not unpacked: no encoding is asked for, and a few bytes may unpack to gigabytes.

        Raises:
            HttpFailure: the status is none of success; redirects are none either.
        """
        response = super().urlopen(*arguments, **{**options, "decode_content": False})
        if not 200 <= response.status <= 299:
            raise HttpFailure(response.status, response.reason, response.headers, read_whole(response))
        return response


class _SecurePool(_Pool, urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection  # type: ignore[assignment]  # which is typed for one scheme


class _SilentPool(_SecurePool):
    ConnectionCls = _SilentConnection


def bound_answers(pools: urllib3.PoolManager, tls: ssl.SSLContext | None) -> None:
    """Let a pool manager use connections with bounded answers.

    Args:
        pools: that have made no connection yet.
        tls: what their certificates are verified with.
    """
    silent = tls is not None and tls.verify_mode == ssl.CERT_NONE
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _SilentPool if silent else _SecurePool}


def read_whole(response: urllib3.BaseHTTPResponse) -> bytes:
    """Return the content of an answer, the first `LARGEST_ANSWER` bytes; after less, its connection can be used again.

    Raises:
        urllib3.exceptions.HTTPError: it stops, or takes too long.
    """
    pieces: list[bytes] = []
    left = LARGEST_ANSWER
    for piece in response.stream(READ_BYTES):
        pieces.append(piece[:left])
        left -= len(piece)
        if left <= 0:
            response.close()
            break
    return b"".join(pieces)


def renew(response: urllib3.BaseHTTPResponse) -> None:
    """Let the timeout of an answer that is read as it arrives begin again, since a part of it is complete."""
    connection = response.connection
    if isinstance(connection, _Bounded) and connection.reader is not None:
        connection.reader.renew()
