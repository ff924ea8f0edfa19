"""What stands before every request: who may come, from where, how much, and how many at once.

In this order: the Host header (a web page that rebinds its own name to this machine's address is
turned away), the Origin header (a page that isn't allowed may not even send), the key, the room
there is, and the body's size and time. Nothing of a body is read before that.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import Counter

import anyio
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.server.errors import ApiError, error_response
from corral.server.replies import ABORT, Patience
from corral.server.settings import is_loopback

__all__ = ["CLIENT", "SESSION_HEADER", "Front"]

CLIENT = "corral.client"
"""Where a request's scope holds the name of its key; None without keys."""

SESSION_HEADER = "X-Corral-Session"

_DISCARD = 4
"""How many times the largest body is read, to be thrown away, of one that is too large."""

_DISCARD_SECONDS = 2.0

_OPEN_PATHS = ("/", "/health")
"""What anyone may ask: whether the server is there."""


class Front:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, *, patience: Patience) -> None:
        """Stand before `app`."""
        self._app = app
        self._patience = patience
        self._settings = patience.settings
        self._hosts = {name.lower() for name in self._settings.hosts}
        self._digests = [(key.name, _digest(key.secret)) for key in self._settings.keys]
        self._running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        # ASGI has no word for cutting a connection: closing it waits until the client has read
        # everything. uvicorn's `send` is a method of the object that holds the transport.
        transport = getattr(getattr(send, "__self__", None), "transport", None)
        scope[ABORT] = getattr(transport, "abort", None)
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = origin if origin in self._settings.origins else None
        if allowed is not None:
            send = _with_cors(send, allowed)
        try:
            self._check_host(headers)
            if origin is not None and allowed is None:
                raise ApiError(
                    403,
                    f"Pages of {origin!r} may not use this server. Its operator can allow them: "
                    "--origin",
                    code="origin_not_allowed",
                )
            if scope["method"] == "OPTIONS" and allowed is not None:
                return await _preflight(headers)(scope, receive, send)
            client = self._client(scope, headers)
        except ApiError as error:
            return await error_response(error, path=scope["path"])(scope, receive, send)
        await self._admit(client, scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        """Take a Host that is this machine's: an address, `localhost`, or a name allowed by hand.

        DNS rebinding needs a name of the attacker's own.
        """
        host = _hostname(headers.get("host", ""))
        if host in self._hosts or host == "localhost" or host.endswith(".localhost"):
            return
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if address is not None and (address.is_loopback or not is_loopback(self._settings.host)):
            return
        raise ApiError(
            403,
            f"This server isn't called {host!r}. Address it as {self._settings.host}, or let its "
            "operator allow the name: --allow-host",
            code="host_not_allowed",
        )

    def _client(self, scope: Scope, headers: Headers) -> str:
        """Who asks: the name of its key, else its address.

        Raises:
            ApiError: 401, it has no key of this server.
        """
        scope[CLIENT] = None
        peer: tuple[str, int] | None = scope.get("client")
        address = peer[0] if peer else ""
        if not self._digests or scope["path"] in _OPEN_PATHS:
            return address
        scheme, _, given = headers.get("authorization", "").partition(" ")
        digest = _digest(given.strip() if scheme.lower() == "bearer" else "")
        # Every key is compared, in a time that doesn't depend on how far it agrees.
        found = [name for name, known in self._digests if hmac.compare_digest(known, digest)]
        if not found:
            raise ApiError(
                401,
                "This server needs a key. Send it: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        scope[CLIENT] = found[0]
        return found[0]

    async def _admit(self, client: str, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._no_room(client)
        if refusal is not None:
            return await error_response(refusal, path=scope["path"])(scope, receive, send)
        self._running[client] += 1
        try:
            body = _Body(self._patience, Headers(scope=scope), receive)
            await self._app(scope, body.receive, send)
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    def _no_room(self, client: str) -> ApiError | None:
        if self._patience.drain.stopping:
            return ApiError(503, "The server is stopping. Try again later.", retry_after=5)
        if self._running.total() >= self._settings.requests:
            return ApiError(
                503, "The server is busy. Try again later.", code="server_busy", retry_after=2
            )
        if self._running[client] >= self._settings.client_requests:
            return ApiError(
                429,
                f"You have {self._settings.client_requests} requests running. Wait for one to end.",
                code="too_many_requests",
                retry_after=1,
            )
        return None


class _Body:
    """A request's body as it arrives, within its bounds of size and time."""

    def __init__(self, patience: Patience, headers: Headers, receive: Receive) -> None:
        self._settings = patience.settings
        self._receive = receive
        self._seen = 0
        self._whole = False
        length = headers.get("content-length", "")
        self._announced = int(length) if length.isdecimal() else 0
        self._deadline = anyio.current_time() + self._settings.body_seconds

    async def receive(self) -> Message:
        """The next part of it, and afterwards what becomes of the connection."""
        if self._whole:
            return await self._receive()
        if self._announced > self._settings.body_bytes:
            raise await self._too_large()
        try:
            with anyio.fail_after(max(0.0, self._deadline - anyio.current_time())):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408, "The request's body took too long to arrive.", headers={"Connection": "close"}
            ) from None
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._seen > self._settings.body_bytes:
                raise await self._too_large()
        return message

    async def _too_large(self) -> ApiError:
        """The refusal, once a client that soon comes to its end has done so.

        A connection that is closed while something is unread is reset, and the client would never
        see why.
        """
        with anyio.move_on_after(_DISCARD_SECONDS):
            while not self._whole and self._seen < _DISCARD * self._settings.body_bytes:
                message = await self._receive()
                self._seen += len(message.get("body", b""))
                self._whole = not message.get("more_body", False)
        return ApiError(
            413,
            f"The body is larger than this server takes: {self._settings.body_bytes} bytes.",
            code="body_too_large",
            headers={"Connection": "close"},
        )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _hostname(host: str) -> str:
    """A Host header without its port and brackets, in small letters."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _preflight(headers: Headers) -> Response:
    """What a browser asks before it lets an allowed page send."""
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
            "Access-Control-Allow-Headers": headers.get(
                "access-control-request-headers", "authorization, content-type"
            ),
            "Access-Control-Max-Age": "600",
        },
    )


def _with_cors(send: Send, origin: str) -> Send:
    """`send`, with the headers that let a page of `origin` read the answer."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {
                **message,
                "headers": [
                    *message.get("headers", []),
                    (b"access-control-allow-origin", origin.encode("latin-1")),
                    (b"access-control-expose-headers", f"{SESSION_HEADER}, Retry-After".encode()),
                    (b"vary", b"Origin"),
                ],
            }
        await send(message)

    return sending
