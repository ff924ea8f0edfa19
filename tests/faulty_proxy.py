"""A proxy that breaks what passes through it, in ways that networks and servers do.

It stands between a runtime and a real server. What a server answered once is kept, so that an
answer can be cut behind every byte without the model writing it anew each time.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Cut:
    """The kept answer's first `after` bytes, then the connection is closed."""

    after: int


@dataclass(frozen=True)
class Stall:
    """The kept answer's first `after` bytes, then nothing more, with the connection open."""

    after: int


@dataclass(frozen=True)
class Status:
    """An error of the server."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": "something failed"}'


@dataclass(frozen=True)
class Changed:
    """The kept answer's body, changed."""

    change: Callable[[bytes], bytes]


Fault = Cut | Stall | Status | Changed


class FaultyProxy:
    """The proxy. `faults` are for the next requests to `path`, one each; others pass."""

    def __init__(self, upstream: str, path: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self.path = path
        self.faults: deque[Fault] = deque()
        self.seen = 0
        """Requests to `path`."""
        self.kept = b""
        """The last whole answer from `path`."""
        self.keeping = threading.Event()
        self.url = ""
        self._stop = threading.Event()

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection:
            request = _read_request(connection)
            if not request:
                return
            ours = request.split(b" ", 2)[1].decode() == self.path
            self.seen += ours
            if ours and self.faults:
                return self._break(connection, self.faults.popleft())
            answer = self._pass(request, connection)
            if ours:
                self.kept = answer
                self.keeping.set()

    def _pass(self, request: bytes, connection: socket.socket) -> bytes:
        answer, listening = b"", True
        with socket.create_connection(self._upstream) as server:
            server.sendall(request)
            while chunk := server.recv(65536):
                answer += chunk
                try:
                    if listening:
                        connection.sendall(chunk)
                except OSError:  # a client may leave once it has what it wanted
                    listening = False
        return answer

    def _break(self, connection: socket.socket, fault: Fault) -> None:
        head, _, body = self.kept.partition(b"\r\n\r\n")
        try:
            match fault:
                case Cut():
                    connection.sendall(self.kept[: fault.after])
                case Stall():
                    connection.sendall(self.kept[: fault.after])
                    self._stop.wait(60)
                case Changed():
                    connection.sendall(head + b"\r\n\r\n" + fault.change(body))
                case Status():
                    headers = {**fault.headers, "Content-Length": str(len(fault.body))}
                    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
                    start = f"HTTP/1.1 {fault.code} Fault\r\n{lines}Connection: close\r\n\r\n"
                    connection.sendall(start.encode() + fault.body)
        except OSError:
            pass

    def close(self) -> None:
        self._stop.set()


def _read_request(connection: socket.socket) -> bytes:
    """A whole request, with the connection to be closed after it."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = next((int(v[15:]) for v in lines if v.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*kept, b"Connection: close", b"", body])


@contextmanager
def break_things(upstream: str, path: str) -> Iterator[FaultyProxy]:
    """A proxy in front of `upstream` that can break what `path` answers."""
    proxy = FaultyProxy(upstream, path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.close()
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()
