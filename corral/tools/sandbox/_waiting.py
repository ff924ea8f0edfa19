"""Waiting under any event loop: for blocking work on a thread, and for one's turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from corral.errors import SandboxUnavailable

__all__ = ["Places", "in_thread"]

_T = TypeVar("_T")
_LOOK_SECONDS = 0.005


class Places:
    """So many places, given in the order in which they are asked for; `async with` takes one.

    Unlike the locks of an event loop it may be shared by loops that run side by side in threads, as
    a program's own `run_sync` calls do. Whoever has to wait looks every few milliseconds.
    """

    def __init__(self, count: int) -> None:
        """Begin with all places free."""
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[object] = deque()

    async def __aenter__(self) -> None:
        """Wait for a place and take it."""
        ticket = object()
        self._waiting.append(ticket)
        try:
            while not self._take(ticket):  # noqa: ASYNC110  (an Event belongs to one loop)
                await anyio.sleep(_LOOK_SECONDS)
        except BaseException:
            self._waiting.remove(ticket)
            raise

    async def __aexit__(self, *_: object) -> None:
        """Give the place back."""
        with self._lock:
            self._free += 1

    def _take(self, ticket: object) -> bool:
        with self._lock:
            if not self._free or self._waiting[0] is not ticket:
                return False
            self._waiting.popleft()
            self._free -= 1
            return True


async def in_thread(work: Callable[[], _T], *, stop: Callable[[], None]) -> _T:
    """What `work` returns; a cancel calls `stop` and waits until `work` has come to its end."""
    outcome: list[_T] = []
    failure: Exception | None = None

    def guarded() -> Exception | None:
        try:
            outcome.append(work())
        except (
            Exception
        ) as error:  # Raised again below, outside the task group, which would wrap it.
            return error
        return None

    async def stop_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stop()

    async with anyio.create_task_group() as group:
        group.start_soon(stop_when_cancelled)
        # Shielded, so that a cancel waits until the program is dead; a limiter of its own, since a
        # program may take as long as its permissions say and must not keep other work from its
        # thread.
        with anyio.CancelScope(shield=True):
            failure = await anyio.to_thread.run_sync(guarded, limiter=anyio.CapacityLimiter(1))
        group.cancel_scope.cancel()
    # The shield has kept a cancel from this task; here it is told.
    await anyio.lowlevel.checkpoint_if_cancelled()
    if failure is not None:
        raise failure
    if not outcome:
        raise SandboxUnavailable("The sandbox was cancelled. Run it again.")
    return outcome[0]
