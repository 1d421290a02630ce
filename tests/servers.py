"""A real HTTP server in front of a store's: it passes requests on, or does what no well server can be made to do."""

from __future__ import annotations

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Answer = Callable[["Handler", bytes], None]


class Front:
    """The server, on a port of the loopback address, in threads of its own.

    Args:
        behind: the address of the server that it passes requests on to.
        port: any where 0.

    Attributes:
        answer: what it does with a request in place of passing it on; None: it passes it on.
        asked: moments (seconds, monotonic) at which it was asked to write lines.
        held: how many requests wait for an answer that never comes, or never ends.
    """

    def __init__(self, behind: str = "", port: int = 0) -> None:
        self.behind = urlsplit(behind).netloc
        self.answer: Answer | None = None
        self.asked: list[float] = []
        self.held = 0
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (Handler,), {"front": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Let go of what is held, and stop."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    front: Front

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path.startswith("/api/v2/write") and len(body) > _EMPTY:
            self.front.asked.append(time.monotonic())
        with contextlib.suppress(ConnectionError):  # whoever asked has gone
            (self.front.answer or passing_on)(self, body)

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, format: str, *args: Any) -> None:
        pass


_EMPTY = 30
"""Bytes of a gzip that holds nothing, at most: `Store.check` writes that."""


def passing_on(handler: Handler, body: bytes) -> None:
    """Ask the server behind, and give its answer."""
    _answer(handler, *_ask(handler, body))


def replying(status: int, body: bytes = b"", **headers: str) -> Answer:
    """Always the same answer; underscores in the names of headers stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler, _: _answer(handler, status, body, named)


def first(answer: Answer) -> Answer:
    """This answer to the first write of lines, and from then on those of the server behind."""

    def once(handler: Handler, body: bytes) -> None:
        if len(body) > _EMPTY:
            handler.front.answer = None
        answer(handler, body)

    return once


def refusing_more_than(size: int) -> Answer:
    """What a proxy does that limits the size of a body, in bytes."""
    refuse = replying(413, b"<html>413 Request Entity Too Large</html>", Content_Type="text/html")
    return lambda handler, body: (refuse if len(body) > size else passing_on)(handler, body)


def holding(handler: Handler, body: bytes) -> None:
    """No answer, for as long as the server lives."""
    handler.front.held += 1
    handler.front.closing.wait()
    handler.close_connection = True


def dripping(handler: Handler, body: bytes) -> None:
    """An answer without end, a byte at a time."""
    handler.front.held += 1
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    while not handler.front.closing.wait(0.05):
        handler.wfile.write(b"x")
    handler.close_connection = True


def cutting(handler: Handler, body: bytes) -> None:
    """The server behind does its work; its answer breaks off in the first line."""
    _ask(handler, body)
    handler.wfile.write(b"HTTP/1.1 204 No Con")
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def _ask(handler: Handler, body: bytes) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(handler.front.behind, timeout=30)
    try:
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "host"}
        connection.request(handler.command, handler.path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        kept = ("Content-Type", "Content-Encoding", "Retry-After")
        return response.status, answer, {name: response.headers[name] for name in kept if name in response.headers}
    finally:
        connection.close()


def _answer(handler: Handler, status: int, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    if status != 204:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
