"""A server of bytes: what it answers need not be HTTP, and need not end."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

PIECE = 2**16
PAUSE_S = 0.05
"""Between two bytes of an answer that drips."""


@dataclass
class Reply:
    """What is sent in answer to a request.

    Attributes:
        content: the bytes.
        pace: `whole`: at once, and the connection stays open as HTTP says; `cut`: at once, then it is closed;
            `reset`: likewise, without good manners; `drip`: a byte at a time, then it is closed; `hold`: at once, and
            no more; `endless`: the last of it, `repeat`, again and again; `endless drip`: likewise, a byte at a time.
        repeat: what an endless answer repeats.
    """

    content: bytes
    pace: Literal["whole", "cut", "reset", "drip", "hold", "endless", "endless drip"] = "whole"
    repeat: bytes = b"x"

    def __repr__(self) -> str:
        shown = self.content if len(self.content) < 400 else self.content[:400] + b"..."
        more = f", then {self.repeat[:40]!r}" if "endless" in self.pace else ""
        return f"<{self.pace}: {shown!r}{more}>"


class RawServer:
    """The server, on a port of the loopback address, in threads of its own.

    Attributes:
        answer: gives the reply to method, path with query, and body.
        url: its address.
    """

    def __init__(self) -> None:
        self.answer: Callable[[str, str, bytes], Reply] = lambda *_: Reply(b"")
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._ending = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def let_go(self) -> None:
        """Close the connections there are, and whatever is sent on them."""
        ending, self._ending = self._ending, threading.Event()
        ending.set()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection, self._ending), daemon=True).start()

    def _serve(self, connection: socket.socket, ending: threading.Event) -> None:
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as requests:
            while line := requests.readline(PIECE):
                method, path, _ = line.decode("latin1").split(" ", 2)
                length = 0
                while (header := requests.readline(PIECE)) not in (b"\r\n", b"\n", b""):
                    name, _, value = header.decode("latin1").partition(":")
                    length = int(value) if name.lower() == "content-length" else length
                reply = self.answer(method, path, requests.read(length))
                if not _send(connection, reply, ending):
                    break
        self._open.discard(connection)


def _send(connection: socket.socket, reply: Reply, ending: threading.Event) -> bool:
    """Send a reply, and return whether the connection stays open."""
    if "drip" in reply.pace:
        for byte in reply.content:
            connection.sendall(bytes([byte]))
            if ending.wait(PAUSE_S):
                return False
    else:
        connection.sendall(reply.content)
    if reply.pace == "hold":
        ending.wait()
    elif reply.pace == "reset":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    elif reply.pace.startswith("endless"):
        piece = reply.repeat if "drip" in reply.pace else reply.repeat * (PIECE // len(reply.repeat))
        while not ending.wait(PAUSE_S if "drip" in reply.pace else 0):
            connection.sendall(piece)
    return reply.pace == "whole"
