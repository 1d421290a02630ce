"""Real servers between a client and a store: a front, which may speak TLS or misbehave, and a forward proxy."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import select
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Answer = Callable[["Handler", bytes], None]


class Front:
    """The server, on a port of the loopback address, in threads of its own.

    Args:
        behind: the address of the server that it passes requests on to.
        port: any where 0.
        tls: with which it speaks TLS; None: it speaks none.

    Attributes:
        answer: what it does with a request in place of passing it on; None: it passes it on.
        asked: moments (seconds, monotonic) at which it was asked to write lines.
        held: how many requests wait for an answer that never comes, or never ends.
    """

    def __init__(self, behind: str = "", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.behind = urlsplit(behind).netloc
        self.answer: Answer | None = None
        self.asked: list[float] = []
        self.held = 0
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (Handler,), {"front": self}))
        if tls is not None:
            # Not at once: a client that fails in the handshake would end the loop that accepts the others.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )
        self.port = self._server.server_port
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Let go of what is held, and stop."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    front: Front

    def handle(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # who asked did not like its certificate
            super().handle()

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
    _answer(handler, *_ask(handler, body, handler.front.behind))


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


def failing_on(text: bytes, answer: Answer) -> Answer:
    """This answer to a write of lines that have the text in them; all else is passed on."""

    def choose(handler: Handler, body: bytes) -> None:
        written = gzip.decompress(body) if handler.path.startswith("/api/v2/write") else b""
        (answer if text in written else passing_on)(handler, body)

    return choose


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
    _ask(handler, body, handler.front.behind)
    handler.wfile.write(b"HTTP/1.1 204 No Con")
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def _ask(handler: BaseHTTPRequestHandler, body: bytes, behind: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(behind, timeout=30)
    try:
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "host"}
        connection.request(handler.command, handler.path, body, headers)
        response = connection.getresponse()
        answer = response.read()
        kept = ("Content-Type", "Content-Encoding", "Retry-After", "X-Influxdb-Version", "X-Influxdb-Build")
        return response.status, answer, {name: response.headers[name] for name in kept if name in response.headers}
    finally:
        connection.close()


def _answer(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    if status != 204:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


class ForwardProxy:
    """A forward proxy, as an office has one, on a port of the loopback address.

    Args:
        hosts: where it connects to instead, by `host:port`, as a name server would tell.
        login: `user:password` that it wants; none where empty.

    Attributes:
        asked: what it was asked for, as method and address.
    """

    def __init__(self, hosts: Mapping[str, str], login: str = "") -> None:
        self.hosts, self.login = hosts, login
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_ProxyHandler,), {"proxy": self}))
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


class _ProxyHandler(BaseHTTPRequestHandler):
    proxy: ForwardProxy

    def do_CONNECT(self) -> None:
        host, _, port = (self._target(self.path) or "").partition(":")
        if not host:
            return
        try:
            server = socket.create_connection((host, int(port)), timeout=30)
        except OSError:
            _answer(self, 502, b"", {})
            return
        with server:
            self.send_response(200)
            self.end_headers()
            pair = (self.connection, server)
            while True:
                for ready in select.select(pair, (), ())[0]:
                    if not (piece := ready.recv(2**16)):
                        self.close_connection = True
                        return
                    pair[ready is pair[0]].sendall(piece)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        address = urlsplit(self.path)
        if target := self._target(address.netloc):
            self.path = f"{address.path}?{address.query}"
            _answer(self, *_ask(self, body, target))

    def do_GET(self) -> None:
        self.do_POST()

    def _target(self, address: str) -> str | None:
        """Return where it connects to; None where it refuses, which it has said."""
        self.proxy.asked.append(f"{self.command} {address}")
        wanted = f"Basic {base64.b64encode(self.proxy.login.encode()).decode()}"
        if self.proxy.login and self.headers["Proxy-Authorization"] != wanted:
            _answer(self, 407, b"", {"Proxy-Authenticate": "Basic"})
            return None
        if address not in self.proxy.hosts:
            _answer(self, 403, b"", {})
            return None
        return self.proxy.hosts[address]

    def log_message(self, format: str, *args: Any) -> None:
        pass


def certificate(folder: Path, name: str, signer: Path | None = None, alt: str = "IP:127.0.0.1") -> Path:
    """Make a certificate with openssl; its file holds the key too.

    Args:
        folder: where the file goes.
        name: of the file, and in the certificate.
        signer: file of another, that signs it; None: it signs itself, and may sign others.
        alt: whom it is for, as openssl writes it.
    """
    key, file = folder / f"{name}.key", folder / f"{name}.pem"
    signed = ["-CA", signer, "-CAkey", signer] if signer else []
    use = "CA:FALSE" if signer else "CA:TRUE"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={alt}", "-keyout", key, "-out", file]
    command += ["-addext", f"basicConstraints=critical,{use}", *signed]
    subprocess.run(command, check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + key.read_bytes())
    return file
