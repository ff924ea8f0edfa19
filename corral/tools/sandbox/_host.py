"""The host's side of one call: start the confined process, feed it, read it, and end it.

Plain blocking code on one thread with a selector, the same under every event loop. Ending is always
the same: let go of the leash, and the supervisor kills and reaps all there is, then ends itself;
its status pipe closing says that it did.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import selectors
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

from corral.errors import SandboxUnavailable
from corral.tools.sandbox._layout import NEWEST_LANDLOCK, environment, policy_for
from corral.tools.sandbox._policy import Policy
from corral.tools.sandbox.permissions import Level, Permissions
from corral.tools.sandbox.result import Limit, SandboxResult

__all__ = ["Call", "prepare"]

_SETUP_SECONDS = 20.0
_KILL_SECONDS = 10.0
_PIECE = 1 << 16
_SIGXCPU = 24
_LIMITS: dict[str, Limit] = {"memory": "memory", "disk": "disk", "files": "files"}
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


@dataclass(slots=True)
class _Stream:
    """What is kept of one output stream, and how much was not."""

    limit: int
    kept: bytearray = field(default_factory=bytearray)
    dropped: int = 0

    def take(self, data: bytes) -> None:
        room = self.limit - len(self.kept)
        self.kept += data[:room]
        self.dropped += max(0, len(data) - room)


class Call:
    """One run of one program. `run` blocks and is called once; `stop` may be called at any time."""

    def __init__(
        self,
        policy: Policy,
        *,
        request: bytes,
        stdin: bytes,
        environment: dict[str, str],
        wall_seconds: float,
        output_bytes: int,
    ) -> None:
        self._policy = policy
        self._environment = environment
        self._wall = wall_seconds
        self._wake_read, self._wake_write = _pipes(1)[0]
        os.set_blocking(self._wake_write, False)
        self._wake_lock = threading.Lock()
        self._leash = -1
        self._writes: dict[int, memoryview] = {}
        self._inputs = (request, stdin)
        self._streams = (_Stream(output_bytes), _Stream(output_bytes))
        self._status = b""
        self._ready_at: float | None = None
        self._stopped: str | None = None

    def stop(self) -> None:
        """Have the program killed; `run` then returns as soon as all of it is gone."""
        with self._wake_lock, contextlib.suppress(BlockingIOError):
            if self._wake_write >= 0:
                os.write(self._wake_write, b"x")

    def run(self) -> SandboxResult:
        """Run the program to its end.

        Raises:
            SandboxUnavailable: If the confined side could not lock itself down. The program did not
                run then.
        """
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            stack.callback(self._close_wake)
            process, status = self._start(selector, stack)
            try:
                self._loop(selector, status)
            finally:
                self._let_go()
                self._reap(process)
            self._drain(selector)
            ended_at = time.monotonic()
        return self._ended(ended_at)

    def _start(
        self, selector: selectors.BaseSelector, stack: contextlib.ExitStack
    ) -> tuple[subprocess.Popen[bytes], int]:
        ends = _pipes(6)
        (
            (in_r, in_w),
            (out_r, out_w),
            (err_r, err_w),
            (leash_r, leash_w),
            (st_r, st_w),
            (req_r, req_w),
        ) = ends
        ours, theirs = [out_r, err_r, st_r], [in_r, out_w, err_w, leash_r, st_w, req_r]
        for fd in ours:
            stack.callback(os.close, fd)
        self._leash = leash_w
        self._writes = {
            req_w: memoryview(self._inputs[0]),
            in_w: memoryview(self._inputs[1]),
        }
        stack.callback(self._close_writes)
        try:
            here = os.path.dirname(os.path.abspath(__file__))
            numbers = [str(fd) for fd in (leash_r, st_w, req_r)]
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _START, here, *numbers],
                stdin=in_r,
                stdout=out_w,
                stderr=err_w,
                pass_fds=(leash_r, st_w, req_r),
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self._let_go()
            raise SandboxUnavailable(
                f"The sandbox could not start {sys.executable!r}: {error}. "
                "Check that it can be run."
            ) from error
        finally:
            for fd in theirs:
                os.close(fd)
        policy = marshal.dumps(dict(self._policy))
        with contextlib.suppress(BrokenPipeError):
            os.write(leash_w, len(policy).to_bytes(8, "big") + policy)
        for fd in [*ours, *self._writes]:
            os.set_blocking(fd, False)
        selector.register(out_r, selectors.EVENT_READ, self._streams[0])
        selector.register(err_r, selectors.EVENT_READ, self._streams[1])
        selector.register(st_r, selectors.EVENT_READ)
        selector.register(self._wake_read, selectors.EVENT_READ)
        for fd, data in list(self._writes.items()):
            if data:
                selector.register(fd, selectors.EVENT_WRITE)
            else:
                os.close(fd)
                del self._writes[fd]
        return process, st_r

    def _loop(self, selector: selectors.BaseSelector, status: int) -> None:
        """Serve the pipes until the supervisor closes its status, which it does by ending."""
        give_up = time.monotonic() + _SETUP_SECONDS
        while True:
            now = time.monotonic()
            if now >= give_up:
                if self._leash < 0:
                    return
                self._let_go()
                self._stopped = self._stopped or "wall"
                give_up = now + _KILL_SECONDS
            for key, _ in selector.select(give_up - now):
                if key.fd == self._wake_read:
                    selector.unregister(self._wake_read)
                    self._let_go()
                    self._stopped = self._stopped or "stop"
                    give_up = time.monotonic() + _KILL_SECONDS
                elif key.fd == status:
                    if not self._read_status(status):
                        return
                    if self._ready_at is not None and self._leash >= 0:
                        give_up = self._ready_at + self._wall
                elif key.fd in self._writes:
                    self._write(selector, key.fd)
                else:
                    _read(selector, key)

    def _read_status(self, status: int) -> bool:
        data = os.read(status, _PIECE)
        self._status += data
        if self._ready_at is None and b"ready\n" in self._status:
            self._ready_at = time.monotonic()
        return bool(data)

    def _write(self, selector: selectors.BaseSelector, fd: int) -> None:
        try:
            data = self._writes[fd][os.write(fd, self._writes[fd][:_PIECE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            data = memoryview(b"")
        self._writes[fd] = data
        if not data:
            selector.unregister(fd)
            os.close(fd)
            del self._writes[fd]

    def _close_wake(self) -> None:
        with self._wake_lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_write = -1

    def _close_writes(self) -> None:
        for fd in self._writes:
            os.close(fd)
        self._writes.clear()

    def _let_go(self) -> None:
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            # Its children die with it: each asked the kernel for that before anything else.
            process.kill()
            process.wait()

    def _drain(self, selector: selectors.BaseSelector) -> None:
        """Take what is still in the pipes; every writer is dead, so this ends."""
        for key in list(selector.get_map().values()):
            if isinstance(key.data, _Stream):
                while _read(selector, key):
                    pass

    def _ended(self, ended_at: float) -> SandboxResult:
        lines = self._status.decode("utf-8", "replace").splitlines()
        if self._ready_at is None and self._stopped != "stop":
            why = next((line[7:] for line in lines if line.startswith("failed ")), "")
            why = why or self._streams[1].kept.decode("utf-8", "replace").strip()[-500:]
            raise SandboxUnavailable(
                f"The sandbox could not lock itself down: {why or 'it ended before it was ready'}. "
                "Nothing was run. Run `corral doctor` to see what this machine lacks."
            )
        code = number = None
        over: Limit | None = "wall" if self._stopped == "wall" else None
        for line in lines:
            kind, *words = line.split()
            if kind == "over":
                over = _LIMITS[words[0]]
            elif kind == "exit":
                code = int(words[0])
            elif kind == "signal":
                number = int(words[0])
                if over is None and (
                    number == _SIGXCPU or float(words[1]) >= self._policy["cpu_seconds"]
                ):
                    over = "cpu"
        if code is None and number is None:
            number = 9
        out, err = self._streams
        return SandboxResult(
            stdout=out.kept.decode("utf-8", "replace"),
            stderr=err.kept.decode("utf-8", "replace"),
            exit_code=code,
            signal=number,
            timed_out=over == "wall",
            truncated=bool(out.dropped or err.dropped),
            seconds=ended_at - (self._ready_at or ended_at),
            level="namespaces" if self._policy["level"] == "namespaces" else "reduced",
            over=over,
        )


def prepare(
    level: Level,
    code: str,
    *,
    permissions: Permissions,
    stdin: bytes = b"",
    without: frozenset[str] = frozenset(),
    landlock: int = NEWEST_LANDLOCK,
) -> Call:
    """A call that runs the program `code` on `level`.

    `without` and `landlock` leave out layers, or use an older one, for tests alone.

    Raises:
        ConfigError: If a granted path doesn't exist.
    """
    return Call(
        policy_for(permissions, level, without=without, landlock=landlock),
        request=code.encode("utf-8", "surrogatepass"),
        stdin=stdin,
        environment=environment(permissions),
        wall_seconds=permissions.wall_seconds,
        output_bytes=permissions.output_bytes,
    )


def _pipes(count: int) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    try:
        for _ in range(count):
            made.append(os.pipe())
    except OSError as error:
        for fd in (fd for pair in made for fd in pair):
            os.close(fd)
        raise SandboxUnavailable(
            f"The sandbox could not make its pipes: {error}. Run fewer programs at the same time, "
            "or raise `ulimit -n`."
        ) from error
    return made


def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> bool:
    """Read once from an output stream; false when there is nothing more for now or for good."""
    try:
        data = os.read(key.fd, _PIECE)
    except BlockingIOError:
        return False
    if not data:
        selector.unregister(key.fd)
        return False
    key.data.take(data)
    return True
