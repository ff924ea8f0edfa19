"""Listening: a socket, a server on it, and a stop that lets turns end first."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio

from corral.agents import Agent
from corral.errors import ConfigError
from corral.model_runtime.opening import Progress
from corral.server.settings import ServerSettings

if TYPE_CHECKING:
    from corral.server.stopping import StoppableServer

__all__ = ["serve"]

_BACKLOG = 1024
_CONNECTIONS = 4
"""Open connections for each request that is taken at once: most are idle."""

_UNSENT = 128 * 1024
"""Bytes that may wait in the kernel for one client. More would only hide a client that is gone."""


async def serve(
    agents: Sequence[Agent],
    settings: ServerSettings,
    *,
    raw: Sequence[str] = (),
    progress: Progress | None = None,
    ready: Callable[[str, Sequence[str]], None] | None = None,
) -> None:
    """Serve agents until the process is told to stop (SIGINT or SIGTERM), or this is cancelled.

    Running turns may end first, for as long as the settings say; then they are cancelled, which
    commits what happened.

    Args:
        agents: Each is served under its own name. They are opened here, and closed at the end.
        settings: Where, for whom, and how much.
        raw: Model strings, or `NAME=MODEL`, to serve without agent, shield and tools.
        progress: Told of downloads and loading.
        ready: Called with the server's URL and its names once it listens.

    Raises:
        ConfigError: The extra isn't installed, the address can't be listened on, or names clash.
        CorralError: An agent or a model can't be opened.
    """
    try:
        import starlette  # pyright: ignore[reportUnusedImport] # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            f"Serving needs the package {error.name!r}: pip install 'llama-corral[server]'"
        ) from error
    from corral.server.app import create_app
    from corral.server.catalogue import Catalogue
    from corral.server.replies import Patience
    from corral.server.stopping import StoppableServer

    listener = _listen(settings)
    try:
        async with Catalogue.open(agents, raw=raw, progress=progress) as catalogue:
            patience = Patience(settings)
            config = uvicorn.Config(
                create_app(catalogue, patience),
                log_config=None,
                access_log=False,
                server_header=False,
                # Any client of this machine could claim to be another by a header.
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS * settings.requests,
                lifespan="off",
                ws="none",
                backlog=_BACKLOG,
                timeout_graceful_shutdown=int(settings.grace_seconds) + 15,
            )
            listener.listen(_BACKLOG)
            if ready is not None:
                ready(_url(listener), catalogue.names)
            await _run(StoppableServer(config, patience), listener)
    finally:
        listener.close()


async def _run(server: StoppableServer, listener: socket.socket) -> None:
    try:
        await server.serve(sockets=[listener])
    except anyio.get_cancelled_exc_class():
        if server.started:
            with anyio.CancelScope(shield=True):
                await server.shutdown(sockets=[listener])
        raise


def _listen(settings: ServerSettings) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"The server can't listen on {settings.host}:{settings.port}: {error}. Choose another "
            "address (--host) or port (--port)."
        ) from error
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
