"""Warm workers: started, locked and waiting, so that a first program need not wait for that.

Each serves one program or one session and is never used again. A waiting worker costs memory alone,
ends by itself when it has waited too long, and dies with this process.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from corral.tools.sandbox._worker import Worker

__all__ = ["Pool"]


class Pool:
    """Keeps up to `spares` workers that `start` starts. May be used from any thread."""

    def __init__(self, start: Callable[[], Worker], *, spares: int = 1) -> None:
        """Begin with none."""
        self._start = start
        self._spares = spares
        self._waiting: list[Worker] = []
        self._lock = threading.Lock()
        self._owner = os.getpid()
        self._closed = False
        # Also at the end of the interpreter, and when the pool is forgotten without being closed.
        self._end = weakref.finalize(self, _close, self._waiting)

    def take(self) -> Worker:
        """A worker of the caller's own, to close: one that waits, or a new one.

        Raises:
            SandboxUnavailable: None could be started.
        """
        self._see_to_fork()
        while True:
            with self._lock:
                worker = self._waiting.pop(0) if self._waiting else None
            if worker is None:
                return self._start()
            if worker.is_fresh():
                return worker
            worker.close()

    def refill(self) -> None:
        """Start what is missing. Returns at once; they get ready by themselves.

        Raises:
            SandboxUnavailable: None could be started.
        """
        self._see_to_fork()
        with self._lock:
            stale = [worker for worker in self._waiting if not worker.is_fresh()]
            self._waiting[:] = [worker for worker in self._waiting if worker not in stale]
            while len(self._waiting) < self._spares and not self._closed:
                self._waiting.append(self._start())
        for worker in stale:
            worker.close()

    def _see_to_fork(self) -> None:
        """In a fork of the process that made it, leave its workers to that and begin with none."""
        if self._owner != os.getpid():
            self._owner, self._lock = os.getpid(), threading.Lock()
            _close(self._waiting)
            self._waiting.clear()

    def close(self) -> None:
        """End the workers that wait."""
        self._see_to_fork()
        with self._lock:
            self._closed = True
            waiting, self._waiting[:] = list(self._waiting), []
        _close(waiting)


def _close(workers: list[Worker]) -> None:
    for worker in workers:
        worker.let_go()
    for worker in workers:
        worker.close()
