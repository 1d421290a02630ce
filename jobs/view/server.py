"""The HTTP server of the page: it answers GET and HEAD, from threads of its own."""

from __future__ import annotations

import errno
import secrets
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from gatewatch.collector.errors import ConfigError, reason_of
from gatewatch.collector.log import log
from gatewatch.jobs.view.access import cookie_for, cookie_of, has_token, is_loopback, names_this_machine
from gatewatch.jobs.view.answers import HEADERS, Answer, compressed, moved, problem, with_tag
from gatewatch.jobs.view.query import Query

if TYPE_CHECKING:
    from collections.abc import Callable

    Respond = Callable[[str, Query, str | None], Answer]

IDLE_SECONDS: Final = 60.0
"""A connection without a request for longer is closed."""
_NEEDS_TOKEN: Final = (
    "this page needs the token: open the address that `gatewatch view` printed, which ends in ?token=…"  # noqa: S105 - no secret
)
_OTHER_NAME: Final = (
    "this page is for this machine alone, as localhost or 127.0.0.1; "
    "`gatewatch view --host ADDRESS` serves it to others, with a token"
)


class ViewServer(ThreadingHTTPServer):
    """Listens on a port, and answers each request by a function.

    Args:
        host: the address to listen on; one that other machines can reach needs a token.
        port: the port; 0: any that is free.
        respond: path, query and the header `If-None-Match` → answer.

    Raises:
        ConfigError: the port is taken or may not be used, or there is no such address on this machine.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, respond: Respond) -> None:
        self.respond = respond
        self.token = None if is_loopback(host) else secrets.token_urlsafe(16)
        try:
            self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            raise _refused(host, port, error) from None
        self.host, self.port = host, int(self.server_address[1])

    @property
    def url(self) -> str:
        """Return the address for a browser, with the token where one is needed."""
        name = socket.gethostname() if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104 - compared only
        name = f"[{name}]" if ":" in name else name
        return f"http://{name}:{self.port}/" + (f"?{urlencode({'token': self.token})}" if self.token else "")

    def server_bind(self) -> None:
        """Bind the socket, without the look-up of the host's name that `HTTPServer` makes, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has gone away; log any other error in one line."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError | TimeoutError):
            log.warning("gatewatch view: a request failed: %s", reason_of(error))


def _refused(host: str, port: int, error: Exception) -> ConfigError:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return ConfigError(
            f"port {port} is in use, by another `gatewatch view` perhaps (see http://localhost:{port}/): "
            "choose another with --port, or --port 0 for any that is free"
        )
    if number == errno.EACCES:
        return ConfigError(f"port {port} may not be used by this user: choose one above 1023 with --port")
    return ConfigError(f"--host {host}: cannot listen there ({getattr(error, 'strerror', None) or error})")


class _Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: ViewServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer a request."""
        self._send(self._answer())

    def do_HEAD(self) -> None:
        """Answer a request without its content."""
        self._send(self._answer())

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request that this server takes; the connection ends."""
        self.close_connection = True
        sentence = "this server answers GET requests only" if code == 501 else message or "the request is wrong"
        self._send(problem(sentence, 405 if code == 501 else code))

    def version_string(self) -> str:
        """Return the header `Server`, which tells no version."""
        return "Gatewatch"

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""

    def _answer(self) -> Answer:
        try:
            address = urlsplit(self.path)
        except ValueError:
            return problem("the address is wrong", 400)
        query = Query(parse_qsl(address.query, keep_blank_values=True, errors="replace"))
        if refused := self._refuse(address.path, query):
            return refused
        known = self.headers["If-None-Match"]
        return with_tag(self.server.respond(address.path, query, known), known)

    def _refuse(self, path: str, query: Query) -> Answer | None:
        """Return why this browser gets no answer; None where it does."""
        token = self.server.token
        if token is None:
            return None if names_this_machine(self.headers["Host"]) else problem(_OTHER_NAME, 403)
        if has_token(token, query.get("token")):  # from here on in a cookie: an address is sent on and logged
            rest = urlencode(query.without("token"))
            page = f"/{quote(path.lstrip('/'))}" + (f"?{rest}" if rest else "")
            return moved(page, **{"Set-Cookie": cookie_for(token, self.server.port)})
        return None if has_token(token, cookie_of(self.headers["Cookie"], self.server.port)) else _without_token()

    def _send(self, answer: Answer) -> None:
        answer = compressed(answer, self.headers["Accept-Encoding"] if hasattr(self, "headers") else None)
        self.send_response(answer.status)
        for name, value in {**HEADERS, "Cache-Control": "no-store", **answer.headers}.items():
            self.send_header(name, value)
        if answer.status != 304:
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)


def _without_token() -> Answer:
    return problem(_NEEDS_TOKEN, 403)
