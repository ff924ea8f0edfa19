"""Running a program in the sandbox."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import anyio.to_thread

from corral.errors import SandboxUnavailable
from corral.tools.sandbox._host import prepare
from corral.tools.sandbox._layout import NEWEST_LANDLOCK
from corral.tools.sandbox.permissions import Level, Permissions
from corral.tools.sandbox.probe import probe
from corral.tools.sandbox.result import SandboxResult

__all__ = ["run_python"]

_NOTHING = Permissions()


async def run_python(
    code: str, *, permissions: Permissions = _NOTHING, stdin: bytes = b""
) -> SandboxResult:
    """Run a Python program, confined to `permissions`, in a process made for it alone.

    The value of the program's last expression is printed, as a notebook does. Its working directory
    is an empty folder that is gone afterwards. Cancelling kills the program; whichever way this
    ends, nothing of it is left running.

    Args:
        code: The program.
        permissions: What it may do; by default nothing but compute and print.
        stdin: What it can read from its standard input.

    Raises:
        SandboxUnavailable: If this machine can't confine the program as strongly as `permissions`
            ask. It did not run.
        ConfigError: If a granted path doesn't exist.
    """
    report = await anyio.to_thread.run_sync(probe)
    level = report.level_for(permissions)
    return await run_at(level, code, permissions=permissions, stdin=stdin)


async def run_at(
    level: Level,
    code: str,
    *,
    permissions: Permissions = _NOTHING,
    stdin: bytes = b"",
    without: frozenset[str] = frozenset(),
    landlock: int = NEWEST_LANDLOCK,
) -> SandboxResult:
    """`run_python` on a chosen level.

    `without` and `landlock` leave out layers, or use an older one, for tests alone.
    """
    call = prepare(
        level, code, permissions=permissions, stdin=stdin, without=without, landlock=landlock
    )

    def work() -> SandboxResult | Exception:
        try:
            return call.run()
        except (
            Exception
        ) as error:  # Raised again below, outside the task group, which would wrap it.
            return error

    async def stop_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            call.stop()

    outcome: SandboxResult | Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(stop_when_cancelled)
        # Shielded, so that a cancel waits until the program is dead; a limiter of its own, since a
        # program may take as long as its permissions say and must not keep other work from its
        # thread.
        with anyio.CancelScope(shield=True):
            outcome = await anyio.to_thread.run_sync(work, limiter=anyio.CapacityLimiter(1))
        group.cancel_scope.cancel()
    # The shield has kept a cancel from this task; here it is told.
    await anyio.lowlevel.checkpoint_if_cancelled()
    if not isinstance(outcome, SandboxResult):
        raise outcome or SandboxUnavailable("The sandbox was cancelled. Run it again.")
    return outcome
