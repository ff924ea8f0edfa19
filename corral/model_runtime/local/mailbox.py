"""From the thread that runs a model to the task that waits for what it writes."""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import current_token

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Anything put in by any thread comes out in order in the task that made the mailbox.

    Putting in never waits: the thread's next token doesn't hang on how fast the last one is read.
    """

    def __init__(self) -> None:
        """Make one for the running event loop."""
        native: Any = current_token().native_token
        # asyncio's loop and Trio's token name it differently.
        self._soon: Any = getattr(native, "call_soon_threadsafe", None) or native.run_sync_soon
        self._items: deque[T] = deque()
        self._event = anyio.Event()

    def put(self, item: T) -> bool:
        """Put an item in, from any thread. False if nobody can read it any more."""
        self._items.append(item)
        try:
            self._soon(self._wake)
        except RuntimeError:
            return False  # the event loop has ended
        return True

    async def take(self) -> T:
        """The next item; waits until there is one."""
        while not self._items:
            await self._event.wait()
            self._event = anyio.Event()
        return self._items.popleft()

    def _wake(self) -> None:
        self._event.set()
