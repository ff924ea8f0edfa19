"""A session: cells of Python that share their variables and their files, like a notebook."""

from __future__ import annotations

import os
import time
import weakref

import anyio
import anyio.to_thread

from corral.errors import SandboxUnavailable
from corral.tools.sandbox import _files
from corral.tools.sandbox._cell import RESULT_BYTES, Cell
from corral.tools.sandbox._exchange import Exchange, Wake
from corral.tools.sandbox._host import never_ready
from corral.tools.sandbox._waiting import Places, in_thread
from corral.tools.sandbox._words import BEGIN, PAUSE
from corral.tools.sandbox._worker import SETUP_SECONDS, Worker
from corral.tools.sandbox.permissions import Permissions
from corral.tools.sandbox.result import CellResult

__all__ = ["PythonSession"]


class PythonSession:
    """A session's cells, run one at a time."""

    def __init__(self, worker: Worker, permissions: Permissions) -> None:
        """Go on with a worker that has run nothing yet; it is the session's own from now on."""
        self._worker = worker
        self._permissions = permissions
        self._folder = _Folder()
        self._seen: dict[str, _files.Seen] = {}
        self._turn = Places(1)
        self._end = weakref.finalize(self, _end, worker, self._folder)

    @property
    def is_over(self) -> bool:
        """Whether no more cells can be run: the session was lost, was idle too long, or closed."""
        return not self._worker.is_fresh()

    @property
    def was_idle(self) -> bool:
        """Whether it is over because it had nothing to do for too long."""
        return "idle" in self._worker.lines

    async def run(self, code: str) -> CellResult:
        """Run a cell. Cancelling kills it and puts the variables back to what they were.

        Raises:
            SandboxUnavailable: The session's process could not lock itself down, or is over. The
                cell did not run.
        """
        async with self._turn:
            wake = Wake()
            try:
                return await in_thread(lambda: self._run(code, wake), stop=wake.up)
            finally:
                wake.close()

    async def aclose(self) -> None:
        """End the session, with all that its cells left running."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._end)

    def _run(self, code: str, wake: Wake) -> CellResult:
        worker = self._worker
        limits = self._permissions
        if self.is_over:
            raise SandboxUnavailable("The session is over, so the cell was not run. Start another.")
        exchange = Exchange(
            worker, wake, output_bytes=limits.output_bytes, result_bytes=RESULT_BYTES + 8
        )
        with exchange:
            self._get_ready(exchange)
            cell = Cell(worker, exchange, wall_seconds=limits.wall_seconds)
            worker.send(BEGIN)
            source = code.encode("utf-8", "surrogatepass")
            exchange.write(worker.request, len(source).to_bytes(8, "big") + source, close=False)
            state = cell.serve()
            if state == "restored" and exchange.writing:
                state = "lost"  # What the copy would read next is the rest of this cell.
            exchange.drain()
        if state != "lost":
            worker.send(PAUSE)
        files = self._changed()
        if state == "lost":
            worker.close()
        return cell.result(state, files)

    def _get_ready(self, exchange: Exchange) -> None:
        """Wait until the worker is locked, and open its folder."""
        worker = self._worker
        until = time.monotonic() + SETUP_SECONDS
        while worker.ready_at is None and not worker.gone and time.monotonic() < until:
            exchange.step(until)
            if exchange.woken:
                break
        if worker.ready_at is None:
            worker.close()
            raise never_ready(worker, exchange.err.text)
        if self._folder.fd < 0:
            self._folder.fd = worker.open_folder()

    def _changed(self) -> tuple[_files.MadeFile, ...]:
        folder = self._folder.fd
        if folder < 0:
            return ()
        after = _files.seen_files(folder)
        changed = _files.changed_files(self._seen, after)
        self._seen = after
        return _files.read_files(folder, changed)


class _Folder:
    """The descriptor of a session's working directory, or -1."""

    fd = -1


def _end(worker: Worker, folder: _Folder) -> None:
    worker.close()
    if folder.fd >= 0:
        os.close(folder.fd)
        folder.fd = -1
