"""A confined process that waits for what it is to run, as the host holds it.

A worker serves one program, or one session's cells, and no other. Ending it is always the same: let
go of the leash, and its supervisor kills and reaps all there is, then ends itself; its status pipe
closing says that it did.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import socket
import subprocess
import sys
import time
from typing import cast

from corral.errors import SandboxUnavailable
from corral.tools.sandbox._policy import Policy
from corral.tools.sandbox._words import BEGIN
from corral.tools.sandbox.permissions import LEVELS, Level

__all__ = ["KILL_SECONDS", "SETUP_SECONDS", "Worker"]

SETUP_SECONDS = 20.0
KILL_SECONDS = 10.0
_PIECE = 1 << 16
_LONGEST_STATUS = 1 << 20
# Gives the confined side its modules as a package of its own, so that `corral`, which imports far
# more, stays out of it.
_START = (
    "import sys\n"
    "jail = type(sys)('corral_sandbox')\n"
    "jail.__path__ = [sys.argv[1]]\n"
    "sys.modules['corral_sandbox'] = jail\n"
    "from corral_sandbox._child import main\n"
    "sys.exit(main(*map(int, sys.argv[2:])))\n"
)


class Worker:
    """A started worker and our ends of its pipes, all of them non-blocking.

    Attributes:
        out: Where its standard output is read.
        err: Where its error stream is read.
        status: Where its supervisor tells what happens, a line each.
        request: Where it is told what to run, or -1 once that is closed.
        stdin: Where its standard input is written, or -1.
        results: Where a session's results are read, or -1.
        lines: What the supervisor has told so far.
        ready_at: When it was found to be locked and waiting, or None.
        gone: Whether all of it has ended.
    """

    def __init__(
        self,
        policy: Policy,
        environment: dict[str, str],
        *,
        stdin: bool = False,
        show_folder: bool = False,
        begin: bool = False,
    ) -> None:
        """Start a worker. It locks itself down meanwhile; `read_status` tells when it has.

        Args:
            policy: What governs it.
            environment: All of its environment.
            stdin: Whether it is to have an input; else that is empty.
            show_folder: Whether `open_folder` is to give its working directory.
            begin: Whether what it is to run is sent at once.

        Raises:
            SandboxUnavailable: It can't be started.
        """
        self.level: Level = next(level for level in LEVELS if level == policy["level"])
        self.cpu_seconds = policy["cpu_seconds"]
        self.lines: list[str] = []
        self.ready_at: float | None = None
        self.gone = False
        self.owner = os.getpid()
        self._told = b""
        self._folder: socket.socket | None = None
        self._waits = show_folder and self.level == "reduced"
        self._open: set[int] = set()
        with contextlib.ExitStack() as theirs:
            try:
                self._start(policy, environment, theirs, stdin=stdin, show_folder=show_folder)
            except BaseException:
                self._close_all()
                raise
        told = marshal.dumps(dict(self._policy))
        with contextlib.suppress(BrokenPipeError):
            os.write(self._leash, len(told).to_bytes(8, "big") + told + (BEGIN if begin else b""))
        for fd in self._open:
            os.set_blocking(fd, False)

    def _start(
        self,
        policy: Policy,
        environment: dict[str, str],
        theirs: contextlib.ExitStack,
        *,
        stdin: bool,
        show_folder: bool,
    ) -> None:
        try:
            out, self.out = self._pipe(theirs, ours_reads=True)
            err, self.err = self._pipe(theirs, ours_reads=True)
            status, self.status = self._pipe(theirs, ours_reads=True)
            leash, self._leash = self._pipe(theirs, ours_reads=False)
            request, self.request = self._pipe(theirs, ours_reads=False)
            results, folder, self.results, self.stdin = -1, -1, -1, -1
            if policy["session"]:
                results, self.results = self._pipe(theirs, ours_reads=True)
            if show_folder:
                self._folder, sent_from = socket.socketpair()
                folder = sent_from.fileno()
                theirs.callback(sent_from.close)
            if stdin:
                read_from, self.stdin = self._pipe(theirs, ours_reads=False)
            else:
                read_from = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                theirs.callback(os.close, read_from)
        except OSError as error:
            raise SandboxUnavailable(
                f"The sandbox could not make its pipes: {error}. Run fewer programs at the same "
                "time, or raise `ulimit -n`."
            ) from error
        self._policy = cast(Policy, {**policy, "results": results, "folder": folder})
        here = os.path.dirname(os.path.abspath(__file__))
        numbers = [str(fd) for fd in (leash, status, request)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _START, here, *numbers],
                stdin=read_from,
                stdout=out,
                stderr=err,
                pass_fds=[fd for fd in (leash, status, request, results, folder) if fd >= 0],
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxUnavailable(
                f"The sandbox could not start {sys.executable!r}: {error}. "
                "Check that it can be run."
            ) from error

    def _pipe(self, theirs: contextlib.ExitStack, *, ours_reads: bool) -> tuple[int, int]:
        read, write = os.pipe()
        their_end, our_end = (write, read) if ours_reads else (read, write)
        theirs.callback(os.close, their_end)
        self._open.add(our_end)
        return their_end, our_end

    def read_status(self) -> list[str]:
        """The lines that have come since, for a status that is readable; notes if it has ended."""
        try:
            data = os.read(self.status, _PIECE)
        except BlockingIOError:
            return []
        self.gone = self.gone or not data
        lines = (self._told + data).split(b"\n")
        self._told = lines.pop()
        new = [line.decode("utf-8", "replace") for line in lines]
        if self.ready_at is None and "ready" in new:
            self.ready_at = time.monotonic()
        # Signals make lines too, where processes may be started: only so many are of interest.
        if len(self.lines) < _LONGEST_STATUS >> 5:
            self.lines += new
        return new

    @property
    def over(self) -> bool:
        """Whether the program and all that it started is dead, and its outcome told."""
        if self.gone:
            return True
        return self._waits and any(line.startswith(("exit ", "signal ")) for line in self.lines)

    def is_fresh(self) -> bool:
        """Whether it can still be given something to run."""
        if self.owner != os.getpid():
            return False
        poll = select.poll()
        poll.register(self.status, select.POLLIN)
        while not self.gone and poll.poll(0):
            self.read_status()
        last = ("failed ", "idle", "lost", "exit ", "signal ")
        ended = any(line.startswith(last) for line in self.lines)
        return not self.gone and not ended

    def send(self, word: bytes) -> None:
        """Tell the supervisor one of the words of `_words.py`."""
        with contextlib.suppress(BrokenPipeError, BlockingIOError):
            if self._leash >= 0:
                os.write(self._leash, word)

    def close_end(self, fd: int) -> None:
        """Close one of our ends, which tells the other side that no more comes."""
        self._open.discard(fd)
        os.close(fd)

    def open_folder(self) -> int:
        """A descriptor of the working directory, for the caller to close; -1 if none came.

        To be asked for once, when the worker is ready.
        """
        if self._folder is None:
            return -1
        with self._folder as end:
            self._folder = None
            end.setblocking(False)
            try:
                _, passed, _, _ = socket.recv_fds(end, 1, 1)
            except OSError:
                return -1
        return passed[0] if passed else -1

    def let_go(self) -> None:
        """Have everything of it killed. It is dead when `gone` is true, or `close` returns."""
        if self._leash >= 0 and self.owner == os.getpid():
            self.close_end(self._leash)
            self._leash = -1

    def close(self) -> None:
        """End it, wait until it is dead, and close what is ours. Does nothing the second time."""
        if self.owner != os.getpid():
            self._forsake()
            return
        self.let_go()
        if self._process.returncode is None:
            self._reap()
        self._close_all()

    def _reap(self) -> None:
        try:
            ended = os.pidfd_open(self._process.pid)
        except OSError:
            self._process.wait()
            return
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        if not poll.poll(KILL_SECONDS * 1000):
            # Its children die with it: each asked the kernel for that before anything else.
            self._process.kill()
        os.close(ended)
        self._process.wait()

    def _forsake(self) -> None:
        """In a fork of the host: it is not ours to end."""
        self._process.returncode = 0
        self._leash = -1
        self._close_all()

    def _close_all(self) -> None:
        self.gone = True
        for fd in self._open:
            os.close(fd)
        self._open.clear()
        if self._folder is not None:
            self._folder.close()
            self._folder = None
