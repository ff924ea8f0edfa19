"""uvicorn's server, with a stop that first gives turns time and then ends them in order."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import anyio
import uvicorn

from corral.server.replies import Patience

__all__ = ["StoppableServer"]

_LOOK = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppableServer(uvicorn.Server):
    """Stops at SIGINT or SIGTERM: new requests are refused, and running ones may end.

    After the grace time, or at a second signal, what still runs is cancelled, which commits it.
    """

    def __init__(self, config: uvicorn.Config, patience: Patience) -> None:
        """Serve `config`'s application, whose replies share `patience`."""
        super().__init__(config)
        self._patience = patience
        self._at_once = False

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; see the class."""
        self._patience.drain.stopping = True
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._end_turns)
            await super().shutdown(sockets)
            tasks.cancel_scope.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: the first asks to stop, another to do so at once."""
        self._at_once = self.should_exit
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Handle signals while the server runs.

        uvicorn would raise them again at the end, and the process would be gone before its agents
        are closed.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in _SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    async def _end_turns(self) -> None:
        for _ in range(int(self._patience.settings.grace_seconds / _LOOK)):
            if self._at_once:
                break
            await anyio.sleep(_LOOK)
        self._patience.drain.cancel_all()
