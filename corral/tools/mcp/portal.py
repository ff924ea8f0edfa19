"""An event loop in a thread of its own, for connections that outlive the task that opened them.

The `mcp` package's client lives inside task groups, which must be left by the task that entered
them. An agent, though, may be opened in one task and closed in another, or even used from several
event loops one after the other. So the client gets a loop of its own, and everybody asks it from
outside.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from corral.errors import ToolError

__all__ = ["Portal"]

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class Portal:
    """A loop in a thread. It is started at the first call and runs until it is stopped."""

    def __init__(self, name: str) -> None:
        """Call the thread `name`."""
        self._name = name
        self._lock = threading.Lock()
        self._stack: ExitStack | None = None
        self._portal: BlockingPortal | None = None

    @property
    def running(self) -> bool:
        """Whether the loop runs."""
        return self._portal is not None

    async def call(self, function: Callable[[*_Args], Awaitable[_T]], *args: *_Args) -> _T:
        """Run an async function in the loop and wait for what it gives.

        Cancelling cancels it there. Raises what it raises.

        Raises:
            ToolError: The loop was stopped meanwhile.
        """
        portal = await anyio.to_thread.run_sync(self._start)
        future: Future[_T] = portal.start_task_soon(function, *args)
        try:
            # A limiter of its own, since a call may take long and must not keep others waiting.
            return await anyio.to_thread.run_sync(
                future.result, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
        except CancelledError as error:
            raise ToolError("The connection was closed. Try again.") from error
        except anyio.get_cancelled_exc_class():
            future.cancel()
            raise

    async def start(self, function: Callable[..., Awaitable[object]]) -> None:
        """Run an async function in the loop that says by `task_status` when it has begun."""

        def begin() -> None:
            self._start().start_task(function)

        await anyio.to_thread.run_sync(begin)

    async def stop(self) -> None:
        """End the loop and whatever runs in it. Safe to call twice."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._stop)

    def _start(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                stack = ExitStack()
                self._portal = stack.enter_context(start_blocking_portal(name=self._name))
                self._stack = stack
            return self._portal

    def _stop(self) -> None:
        with self._lock:
            stack, self._stack, self._portal = self._stack, None, None
            if stack is not None:
                stack.close()
