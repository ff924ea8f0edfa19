"""Ctrl-C as a request to stop, instead of an exception that may strike anywhere.

Python raises `KeyboardInterrupt` between any two instructions. Where that happens to be inside a
destructor or a weak reference's callback it is printed and lost, and the user has pressed Ctrl-C
for nothing. A front end that wants to count on it takes the signal over for as long as it talks.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import anyio
from anyio.abc import TaskStatus

__all__ = ["Interrupts", "catch_interrupts"]


class Interrupts:
    """How often Ctrl-C was pressed since the last `forget`, and what it stops."""

    def __init__(self) -> None:
        """Count from zero."""
        self.count = 0
        self._scope: anyio.CancelScope | None = None

    def add(self) -> None:
        """Count one, and stop what is being waited for."""
        self.count += 1
        if self._scope is not None:
            self._scope.cancel()

    def forget(self) -> None:
        """Count from zero again."""
        self.count = 0

    @contextmanager
    def stopping(self) -> Generator[anyio.CancelScope]:
        """A scope that the next Ctrl-C cancels; one at a time."""
        with anyio.CancelScope() as scope:
            self._scope = scope
            try:
                yield scope
            finally:
                self._scope = None


@asynccontextmanager
async def catch_interrupts() -> AsyncGenerator[Interrupts]:
    """Take Ctrl-C over while this is open; where a platform has no signals it stays as it was."""
    interrupts = Interrupts()

    async def watch(*, task_status: TaskStatus[None]) -> None:
        try:
            with anyio.open_signal_receiver(signal.SIGINT) as signals:
                task_status.started()
                async for _ in signals:
                    interrupts.add()
        except NotImplementedError:
            task_status.started()

    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        await tasks.start(watch)
        try:
            yield interrupts
        except Exception as error:  # raised below: the task group would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
