"""Running a program in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import anyio.to_thread

from corral.errors import ConfigError
from corral.tools.sandbox._host import Call, prepare
from corral.tools.sandbox._layout import NEWEST_LANDLOCK
from corral.tools.sandbox._policy import Request
from corral.tools.sandbox._unsafe import run_unconfined
from corral.tools.sandbox._waiting import in_thread
from corral.tools.sandbox.permissions import Level, Permissions
from corral.tools.sandbox.probe import probe
from corral.tools.sandbox.result import SandboxResult

__all__ = ["run_program", "run_python"]

_NOTHING = Permissions()


async def run_python(
    code: str,
    *,
    permissions: Permissions = _NOTHING,
    stdin: bytes = b"",
    unsafe_local: bool = False,
) -> SandboxResult:
    """Run a Python program, confined to `permissions`, in a process made for it alone.

    The value of the program's last expression is printed, as a notebook does. Its working directory
    is an empty folder that is gone afterwards. Cancelling kills the program; whichever way this
    ends, nothing of it is left running.

    Args:
        code: The program.
        permissions: What it may do; by default nothing but compute and print.
        stdin: What it can read from its standard input.
        unsafe_local: Run it as a plain subprocess with all of your rights, confined by nothing. A
            `RuntimeWarning` says so, and so does the result's `level`. For programs that you would
            run yourself, where there is no sandbox.

    Raises:
        SandboxUnavailable: If this machine can't confine the program as strongly as `permissions`
            ask. It did not run.
        ConfigError: If a granted path doesn't exist.
    """
    if unsafe_local:
        return await run_unconfined(code, permissions=permissions, stdin=stdin)
    report = await anyio.to_thread.run_sync(probe)
    level = report.level_for(permissions)
    return await run_at(level, code, permissions=permissions, stdin=stdin)


async def run_program(
    argv: Sequence[str],
    *,
    permissions: Permissions = _NOTHING,
    stdin: bytes = b"",
    files: Mapping[str, bytes] | None = None,
) -> SandboxResult:
    """Run an executable with its arguments, confined like the programs of `run_python`.

    No shell is involved: each of `argv` arrives as it is. The executable is looked for in the
    folder of the Python that runs Corral, then in /usr/local/bin, /usr/bin and /bin; one that isn't
    there ends with exit code 127 and says so on its error stream, as one that may not be run does
    with 126. It can start other programs only where `permissions.processes` says so; without, it
    may still replace itself by another.

    Args:
        argv: The executable's name or absolute path, and its arguments.
        permissions: What it may do; by default nothing but compute and print.
        stdin: What it can read from its standard input.
        files: Files to find in its working directory, by relative path.

    Raises:
        SandboxUnavailable: If this machine can't confine the program as strongly as `permissions`
            ask. It did not run.
        ConfigError: If a granted path doesn't exist, or `argv` or a name in `files` can't be used.
    """
    level = (await anyio.to_thread.run_sync(probe)).level_for(permissions)
    return await run_program_at(level, argv, permissions=permissions, stdin=stdin, files=files)


async def run_program_at(
    level: Level,
    argv: Sequence[str],
    *,
    permissions: Permissions = _NOTHING,
    stdin: bytes = b"",
    files: Mapping[str, bytes] | None = None,
) -> SandboxResult:
    """`run_program` on a chosen level."""
    request = Request(argv=_arguments(argv), files=_named(files or {}))
    return await _run(prepare(level, request, permissions=permissions, stdin=stdin))


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
    request = Request(source=code)
    return await _run(
        prepare(
            level,
            request,
            permissions=permissions,
            stdin=stdin,
            without=without,
            landlock=landlock,
        )
    )


def _arguments(argv: Sequence[str]) -> list[str]:
    arguments = list(argv)
    if not arguments or not arguments[0]:
        raise ConfigError("There is no program to run: argv is empty. Name one.")
    for argument in arguments:
        if "\0" in argument:
            raise ConfigError(f"The argument {argument!r} holds a NUL. Take it out.")
    return arguments


def _named(files: Mapping[str, bytes]) -> dict[str, bytes]:
    for name in files:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
            raise ConfigError(
                f"The file name {name!r} leads out of the working directory. "
                "Use a relative path without '..'."
            )
    return dict(files)


async def _run(call: Call) -> SandboxResult:
    return await in_thread(call.run, stop=call.stop)
