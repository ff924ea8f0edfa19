"""The host's end of the pipes to one worker, served on one thread with a selector.

Plain blocking code, the same under every event loop.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time
from dataclasses import dataclass, field

from corral.tools.sandbox._worker import Worker

__all__ = ["Exchange", "Stream", "Wake"]

_PIECE = 1 << 16


@dataclass(slots=True)
class Stream:
    """What is kept of one output stream, and how much was not."""

    limit: int
    kept: bytearray = field(default_factory=bytearray)
    dropped: int = 0

    def take(self, data: bytes) -> None:
        """Keep what there is room for."""
        room = self.limit - len(self.kept)
        self.kept += data[:room]
        self.dropped += max(0, len(data) - room)

    @property
    def text(self) -> str:
        """What was kept, as UTF-8; bytes that aren't are shown as U+FFFD."""
        return self.kept.decode("utf-8", "replace")


class Wake:
    """Something that another thread, or a cancel, can wake an exchange by."""

    def __init__(self) -> None:
        """Make it asleep."""
        self.fd, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._lock = threading.Lock()

    def up(self) -> None:
        """Wake the exchange, unless it is over."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._write >= 0:
                os.write(self._write, b"x")

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            if self._write >= 0:
                os.close(self.fd)
                os.close(self._write)
                self._write = -1


class Exchange:
    """Serves the pipes of `worker` in steps, as a context manager.

    Attributes:
        out: What came on its standard output.
        err: The same of its error stream.
        results: What came of a session's results, at most one byte more than `result_bytes`.
        woken: Whether it was woken.
    """

    def __init__(
        self, worker: Worker, wake: Wake, *, output_bytes: int, result_bytes: int = 0
    ) -> None:
        """Get ready to serve. `output_bytes` is kept of each output stream."""
        self.out, self.err = Stream(output_bytes), Stream(output_bytes)
        self.results = Stream(result_bytes + 1)
        self.woken = False
        self._worker = worker
        self._wake = wake
        self._writes: dict[int, tuple[memoryview, bool]] = {}
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Exchange:
        """Begin to serve."""
        worker = self._worker
        self._selector.register(worker.out, selectors.EVENT_READ, self.out)
        self._selector.register(worker.err, selectors.EVENT_READ, self.err)
        if worker.results >= 0:
            self._selector.register(worker.results, selectors.EVENT_READ, self.results)
        self._selector.register(worker.status, selectors.EVENT_READ)
        self._selector.register(self._wake.fd, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving. What was still to be written is dropped."""
        self._selector.close()

    def write(self, fd: int, data: bytes, *, close: bool) -> None:
        """Have `data` written to one of the worker's ends, which is closed after it if said."""
        if data:
            self._writes[fd] = memoryview(data), close
            self._selector.register(fd, selectors.EVENT_WRITE)
        elif close:
            self._worker.close_end(fd)

    @property
    def writing(self) -> bool:
        """Whether there is more to write."""
        return bool(self._writes)

    def step(self, until: float) -> None:
        """Serve what there is, or wait for it until that point of the monotonic clock."""
        for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
            if key.fd == self._wake.fd:
                self._selector.unregister(key.fd)
                self.woken = True
            elif key.fd == self._worker.status:
                self._worker.read_status()
                if self._worker.gone:
                    self._selector.unregister(key.fd)
            elif key.fd in self._writes:
                self._write(key.fd)
            else:
                self._read(key)

    def drain(self) -> None:
        """Take what is in the pipes already."""
        for key in list(self._selector.get_map().values()):
            # A stream is full of as much as a pipe can hold: a writer that goes on is not followed.
            if isinstance(key.data, Stream):
                for _ in range(32):
                    if not self._read(key):
                        break

    def _read(self, key: selectors.SelectorKey) -> bool:
        """Read once from a stream; false when there is nothing more for now or for good."""
        try:
            data = os.read(key.fd, _PIECE)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(key.fd)
            return False
        key.data.take(data)
        return True

    def _write(self, fd: int) -> None:
        data, close = self._writes[fd]
        try:
            data = data[os.write(fd, data[:_PIECE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            data = memoryview(b"")
        self._writes[fd] = data, close
        if not data:
            self._selector.unregister(fd)
            del self._writes[fd]
            if close:
                self._worker.close_end(fd)
