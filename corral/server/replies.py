"""Replies that take a model's time: they end with their client, their time or their server.

A reply's frames are made in one task and sent in another, while a third waits for the client to
go away. Whatever ends it early stops the turn behind it, which commits what happened.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, contextmanager

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from anyio.lowlevel import checkpoint
from starlette.types import Receive, Scope, Send

from corral.errors import CorralError
from corral.server.errors import ApiError, error_response, from_corral
from corral.server.settings import ServerSettings

__all__ = ["ABORT", "Drain", "LiveReply", "Patience"]

ABORT = "corral.abort"
"""Where a request's scope holds what cuts its connection."""

_log = logging.getLogger("corral.server")


class Drain:
    """What must end when the server stops."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.stopping = False
        self._running: set[anyio.CancelScope] = set()

    @contextmanager
    def stoppable(self) -> Generator[anyio.CancelScope]:
        """A scope that ends when the server's patience does."""
        with anyio.CancelScope() as scope:
            self._running.add(scope)
            try:
                yield scope
            finally:
                self._running.discard(scope)

    def cancel_all(self) -> None:
        """End what still runs."""
        for scope in list(self._running):
            scope.cancel()


class Patience:
    """What all replies of a server share: its bounds, the line for its models, and its end."""

    def __init__(self, settings: ServerSettings) -> None:
        """Serve within the bounds of `settings`. To be made where the event loop runs."""
        self.settings = settings
        self.drain = Drain()
        self.line = anyio.CapacityLimiter(settings.turns)


class LiveReply:
    """A reply made of frames, as an ASGI application."""

    def __init__(
        self,
        patience: Patience,
        frames: AsyncGenerator[bytes],
        *,
        media_type: str,
        broken: Callable[[ApiError], bytes],
        headers: Mapping[str, str] | None = None,
        ping: bytes | None = None,
    ) -> None:
        """Reply with `frames`.

        Args:
            patience: What this server's replies share.
            frames: What is sent, in order. It is begun once the model has a place free.
            media_type: Of the body.
            broken: Makes the last frame of a reply that fails after its beginning was sent. Before
                that an error has a status of its own.
            headers: Further headers.
            ping: What may be sent in long silences.
        """
        self._patience = patience
        self._frames = frames
        self._broken = broken
        self._ping = ping
        pairs = {"content-type": media_type, "cache-control": "no-store", **(headers or {})}
        self._headers = [(k.lower().encode(), v.encode("latin-1")) for k, v in pairs.items()]
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make and send the reply."""
        give, take = anyio.create_memory_object_stream[bytes | ApiError](8)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
            tasks.start_soon(self._make, give)
            with take:
                await self._send_all(take, scope, receive, send)
            tasks.cancel_scope.cancel()

    async def _make(self, give: ObjectSendStream[bytes | ApiError]) -> None:
        """Make the frames, and the error that they end with."""
        settings, drain = self._patience.settings, self._patience.drain
        error: ApiError | None = None
        async with give:
            with drain.stoppable() as stop, anyio.move_on_after(settings.request_seconds) as clock:
                error = await self._frames_to(give)
            if stop.cancelled_caught:
                error = ApiError(503, "The server is stopping. Try again later.", retry_after=5)
            elif clock.cancelled_caught:
                seconds = f"{settings.request_seconds:g} seconds"
                error = ApiError(504, f"The request took its {seconds}. Ask for less.")
            if error is not None:
                try:
                    await give.send(error)
                except anyio.BrokenResourceError:
                    return

    async def _frames_to(self, give: ObjectSendStream[bytes | ApiError]) -> ApiError | None:
        try:
            async with self._patience.line, aclosing(self._frames) as frames:
                async for frame in frames:
                    await give.send(frame)
        except ApiError as error:
            return error
        except CorralError as error:
            known = from_corral(error)
            if known.status >= 500:
                _log.error("%s", error)
            return known
        except anyio.BrokenResourceError:  # nobody takes frames any more: the reply is over
            return None
        except Exception:
            _log.exception("A request failed by a fault of the server.")
            return ApiError(500, "The server failed. Its operator finds why in its log.")
        return None

    async def _send_all(
        self,
        take: ObjectReceiveStream[bytes | ApiError],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        try:
            while True:
                frame: bytes | ApiError | None = self._ping
                with anyio.move_on_after(self._patience.settings.ping_seconds):
                    try:
                        frame = await take.receive()
                    except anyio.EndOfStream:
                        break
                if isinstance(frame, ApiError):
                    if not self._started:
                        return await error_response(frame, path=scope["path"])(scope, receive, send)
                    frame = self._broken(frame)
                if frame is not None:
                    await self._send(frame, send)
            await self._end(send)
        except (OSError, TimeoutError):
            # It left, or it leaves unread what it is sent: its connection isn't worth keeping.
            await _abort(scope)

    async def _send(self, frame: bytes, send: Send) -> None:
        with anyio.fail_after(self._patience.settings.send_seconds):
            await self._start(send)
            await send({"type": "http.response.body", "body": frame, "more_body": True})

    async def _end(self, send: Send) -> None:
        with anyio.fail_after(self._patience.settings.send_seconds):
            await self._start(send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, send: Send) -> None:
        if not self._started:
            self._started = True
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """Wait for the client to leave, and end its reply then."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _abort(scope: Scope) -> None:
    """Cut the connection, without waiting for what is still unsent."""
    abort = scope.get(ABORT)
    if abort is not None:
        abort()
        await checkpoint()  # the server learns of it in the loop's next round
