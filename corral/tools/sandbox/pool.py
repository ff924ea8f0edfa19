"""Python in the sandbox without the wait: warm workers for programs and for sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from corral.tools.sandbox._host import Call
from corral.tools.sandbox._layout import environment, policy_for
from corral.tools.sandbox._policy import Request
from corral.tools.sandbox._pool import Pool
from corral.tools.sandbox._waiting import in_thread
from corral.tools.sandbox._worker import Worker
from corral.tools.sandbox.permissions import Level, Permissions
from corral.tools.sandbox.probe import probe
from corral.tools.sandbox.result import SandboxResult
from corral.tools.sandbox.session import PythonSession

__all__ = ["PythonPool"]

_NOTHING = Permissions()


class PythonPool:
    """Runs programs and opens sessions that all have the same permissions.

    One worker of each kind that is used stands ready: locked, with modules imported, and with
    nothing of any program in it. It is used once. What waits costs memory and no processor time.

        async with PythonPool(preload=("numpy",)) as pool:
            result = await pool.run_python("17 * 23")
            session = await pool.open_session()
            await session.run("x = 1")
            cell = await session.run("x + 1")
    """

    def __init__(
        self,
        permissions: Permissions = _NOTHING,
        *,
        data: Path | None = None,
        preload: Sequence[str] = (),
        spares: int = 1,
        idle_seconds: float = 900.0,
        level: Level | None = None,
    ) -> None:
        """Describe the workers. None is started yet.

        Args:
            permissions: What a program, or each cell of a session, may do.
            data: A folder that may be read: as `data` in the working directory, as `/data` where
                there are namespaces, and at its own path elsewhere.
            preload: Modules to import before there is a program.
            spares: How many workers of a kind stand ready.
            idle_seconds: After how long a waiting worker, or a session without a cell, ends by
                itself; 0 for never.
            level: How strongly to confine; by default the strongest way there is here.
        """
        self._permissions = permissions
        self._data = data
        self._preload = tuple(preload)
        self._spares = spares
        self._idle_seconds = idle_seconds
        self._level: Level | None = level
        self._pools: dict[bool, Pool] = {}

    async def warm_up(self, *, sessions: bool) -> None:
        """Start the workers that stand ready, for sessions or else for programs.

        Returns before they are ready.

        Raises:
            SandboxUnavailable: This machine can't confine code as strongly as the permissions ask.
            ConfigError: A granted path doesn't exist.
        """
        await anyio.to_thread.run_sync(lambda: self._pool(sessions=sessions).refill())

    async def run_python(
        self, code: str, *, stdin: bytes = b"", collect_files: bool = False
    ) -> SandboxResult:
        """`corral.tools.sandbox.run_python` with this pool's permissions, in a warm worker."""
        worker = await self._take(sessions=False)
        call = Call(
            worker,
            request=Request(source=code),
            stdin=stdin,
            wall_seconds=self._permissions.wall_seconds,
            output_bytes=self._permissions.output_bytes,
            collect_files=collect_files,
        )
        try:
            return await in_thread(call.run, stop=call.stop)
        finally:
            await self._refill(sessions=False)

    async def open_session(self) -> PythonSession:
        """A new session, for the caller to close.

        Raises:
            SandboxUnavailable: This machine can't confine code as strongly as the permissions ask.
            ConfigError: A granted path doesn't exist.
        """
        session = PythonSession(await self._take(sessions=True), self._permissions)
        await self._refill(sessions=True)
        return session

    async def aclose(self) -> None:
        """End the workers that wait. Sessions go on; what is asked for later starts anew."""
        pools, self._pools = list(self._pools.values()), {}
        with anyio.CancelScope(shield=True):
            for pool in pools:
                await anyio.to_thread.run_sync(pool.close)

    async def __aenter__(self) -> PythonPool:
        """Begin with nothing."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.aclose()

    async def _take(self, *, sessions: bool) -> Worker:
        return await anyio.to_thread.run_sync(lambda: self._pool(sessions=sessions).take())

    async def _refill(self, *, sessions: bool) -> None:
        with anyio.CancelScope(shield=True):
            await self.warm_up(sessions=sessions)

    def _pool(self, *, sessions: bool) -> Pool:
        if sessions not in self._pools:
            self._pools[sessions] = Pool(self._starter(sessions=sessions), spares=self._spares)
        return self._pools[sessions]

    def _starter(self, *, sessions: bool):
        level: Level = self._level or probe().level_for(self._permissions)
        policy = policy_for(
            self._permissions,
            level,
            session=sessions,
            data=self._data,
            preload=self._preload,
            idle_seconds=self._idle_seconds,
        )
        variables = environment(self._permissions)

        def start() -> Worker:
            return Worker(policy, variables, stdin=not sessions, show_folder=True)

        return start
