"""The host's side of one program: start a worker or take a warm one, feed it, read it, end it."""

from __future__ import annotations

import marshal
import os
import time
from collections.abc import Callable

from corral.errors import SandboxUnavailable
from corral.tools.sandbox import _files
from corral.tools.sandbox._exchange import Exchange, Wake
from corral.tools.sandbox._layout import NEWEST_LANDLOCK, environment, policy_for
from corral.tools.sandbox._policy import Request
from corral.tools.sandbox._words import BEGIN, KILL
from corral.tools.sandbox._worker import KILL_SECONDS, SETUP_SECONDS, Worker
from corral.tools.sandbox.permissions import Level, Permissions
from corral.tools.sandbox.result import Limit, MadeFile, SandboxResult

__all__ = ["Call", "never_ready", "prepare"]

_SIGXCPU = 24
_LIMITS: dict[str, Limit] = {"memory": "memory", "disk": "disk", "files": "files", "cpu": "cpu"}


class Call:
    """One run of one program. `run` blocks and is called once; `stop` may be called at any time."""

    def __init__(
        self,
        worker: Worker | Callable[[], Worker],
        *,
        request: Request,
        stdin: bytes,
        wall_seconds: float,
        output_bytes: int,
        collect_files: bool = False,
    ) -> None:
        """Get ready to run what `request` says in a worker that waits, or is started to begin."""
        self._worker = worker
        self._wall = wall_seconds
        self._output_bytes = output_bytes
        self._inputs = (marshal.dumps(dict(request)), stdin)
        self._collect_files = collect_files
        self._wake = Wake()
        self._stopped: str | None = None

    def stop(self) -> None:
        """Have the program killed; `run` then returns as soon as all of it is gone."""
        self._wake.up()

    def run(self) -> SandboxResult:
        """Run the program to its end.

        Raises:
            SandboxUnavailable: If the confined side could not lock itself down. The program did not
                run then.
        """
        try:
            worker = self._worker if isinstance(self._worker, Worker) else self._worker()
        except BaseException:
            self._wake.close()
            raise
        try:
            if worker is self._worker:
                worker.send(BEGIN)
            began = time.monotonic()
            with Exchange(worker, self._wake, output_bytes=self._output_bytes) as exchange:
                exchange.write(worker.request, self._inputs[0], close=True)
                if worker.stdin >= 0:
                    exchange.write(worker.stdin, self._inputs[1], close=True)
                self._serve(worker, exchange, began)
                files = self._files(worker)
                worker.let_go()
                exchange.drain()
            ended = time.monotonic()
        finally:
            self._wake.close()
            worker.close()
        return self._result(worker, exchange, ended - max(began, worker.ready_at or 0), files)

    def _serve(self, worker: Worker, exchange: Exchange, began: float) -> None:
        """Serve the pipes until the program and all that it started is dead."""
        give_up = began + SETUP_SECONDS
        killed = False
        while not worker.over:
            if worker.ready_at is not None and not killed:
                give_up = max(worker.ready_at, began) + self._wall
            if exchange.woken and not killed:
                self._stopped, give_up = "stop", 0.0
            if time.monotonic() >= give_up:
                if killed:
                    return
                self._stopped = self._stopped or "wall"
                worker.send(KILL)
                killed, give_up = True, time.monotonic() + KILL_SECONDS
            exchange.step(give_up)

    def _files(self, worker: Worker) -> tuple[MadeFile, ...]:
        folder = worker.open_folder() if self._collect_files else -1
        if folder < 0:
            return ()
        try:
            return _files.read_files(folder, sorted(_files.seen_files(folder)))
        finally:
            os.close(folder)

    def _result(
        self,
        worker: Worker,
        exchange: Exchange,
        seconds: float,
        files: tuple[MadeFile, ...],
    ) -> SandboxResult:
        if worker.ready_at is None and self._stopped != "stop":
            raise never_ready(worker, exchange.err.text)
        code = number = None
        over: Limit | None = "wall" if self._stopped == "wall" else None
        for line in worker.lines:
            kind, *words = line.split() or [""]
            if kind == "over":
                over = _LIMITS[words[0]]
            elif kind == "exit":
                code = int(words[0])
            elif kind == "signal":
                number = int(words[0])
                if over is None and (number == _SIGXCPU or float(words[1]) >= worker.cpu_seconds):
                    over = "cpu"
        if code is None and number is None:
            number = 9
        return SandboxResult(
            stdout=exchange.out.text,
            stderr=exchange.err.text,
            exit_code=code,
            signal=number,
            timed_out=over == "wall",
            truncated=bool(exchange.out.dropped or exchange.err.dropped),
            seconds=seconds,
            level=worker.level,
            over=over,
            files=files,
        )


def never_ready(worker: Worker, said: str) -> SandboxUnavailable:
    """The error for a worker that ended, having `said` this, before it was locked."""
    why = next((line[7:] for line in worker.lines if line.startswith("failed ")), "")
    why = why or said.strip()[-500:] or "it ended before it was ready"
    return SandboxUnavailable(
        f"The sandbox could not lock itself down: {why}. "
        "Nothing was run. Run `corral doctor` to see what this machine lacks."
    )


def prepare(
    level: Level,
    request: Request,
    *,
    permissions: Permissions,
    stdin: bytes = b"",
    collect_files: bool = False,
    without: frozenset[str] = frozenset(),
    landlock: int = NEWEST_LANDLOCK,
) -> Call:
    """A call that runs what `request` says on `level`.

    `without` and `landlock` leave out layers, or use an older one, for tests alone.

    Raises:
        ConfigError: If a granted path doesn't exist.
    """
    programs = "argv" in request
    policy = policy_for(permissions, level, programs=programs, without=without, landlock=landlock)
    variables = environment(permissions, programs=programs)

    def start() -> Worker:
        return Worker(policy, variables, stdin=bool(stdin), show_folder=collect_files, begin=True)

    return Call(
        start,
        request=request,
        stdin=stdin,
        wall_seconds=permissions.wall_seconds,
        output_bytes=permissions.output_bytes,
        collect_files=collect_files,
    )
