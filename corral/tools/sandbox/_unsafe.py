"""A program run as a plain subprocess, confined by nothing: for machines that have no sandbox.

Only an argument in Python leads here. What is kept of the sandbox is what an honest program needs:
an empty working directory, a clean environment, a deadline, and a cap on what it prints.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from corral.tools.sandbox._exchange import Stream
from corral.tools.sandbox._layout import environment
from corral.tools.sandbox.permissions import Permissions
from corral.tools.sandbox.result import SandboxResult

__all__ = ["WARNING", "run_unconfined"]

WARNING = (
    "unsafe_local=True: the program runs with all of this user's rights, and nothing confines it. "
    "Leave the argument out, and run Corral where `corral doctor` finds a sandbox."
)
_HERE = os.path.dirname(os.path.abspath(__file__))
_CODE, _WORKSPACE = "code", "work"
_START = (
    "import sys\n"
    "own = type(sys)('corral_sandbox')\n"
    "own.__path__ = [sys.argv[1]]\n"
    "sys.modules['corral_sandbox'] = own\n"
    "from corral_sandbox import _program\n"
    "with open(sys.argv[2], encoding='utf-8', errors='surrogatepass', newline='') as file:\n"
    "    source = file.read()\n"
    "sys.argv[:] = ['']\n"
    "for stream in (sys.stdout, sys.stderr):\n"
    "    stream.reconfigure(line_buffering=True, errors='backslashreplace')\n"
    "sys.exit(_program.run(source))\n"
)


async def run_unconfined(code: str, *, permissions: Permissions, stdin: bytes) -> SandboxResult:
    """Run a Python program with the rights of this process; of `permissions` only times hold.

    What it starts and puts into a process group of its own outlives it.
    """
    warnings.warn(WARNING, RuntimeWarning, stacklevel=3)
    folder = await anyio.to_thread.run_sync(_laid_out, code)
    try:
        return await _run(folder, permissions, stdin)
    finally:
        # What the program left may be such that it can't be removed whole.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))


def _laid_out(code: str) -> str:
    folder = tempfile.mkdtemp(prefix="corral-unsafe-")
    Path(folder, _CODE).write_bytes(code.encode("utf-8", "surrogatepass"))
    Path(folder, _WORKSPACE).mkdir()
    return folder


async def _run(folder: str, permissions: Permissions, stdin: bytes) -> SandboxResult:
    code, workspace = os.path.join(folder, _CODE), os.path.join(folder, _WORKSPACE)
    around = {**environment(permissions), "HOME": workspace, "TMPDIR": workspace}
    if "SYSTEMROOT" in os.environ:  # Windows starts nothing without it.
        around["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    started = time.monotonic()
    process = await anyio.open_process(
        [sys.executable, "-I", "-X", "utf8", "-c", _START, _HERE, code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=workspace,
        env=around,
        start_new_session=True,
    )
    out, err = Stream(permissions.output_bytes), Stream(permissions.output_bytes)
    assert process.stdin and process.stdout and process.stderr
    try:
        with anyio.move_on_after(permissions.wall_seconds) as deadline:
            async with anyio.create_task_group() as group:
                group.start_soon(_feed, process.stdin, stdin)
                group.start_soon(_keep, process.stdout, out)
                group.start_soon(_keep, process.stderr, err)
                await process.wait()
                _kill(process)  # What it started and left behind would keep the pipes open.
    finally:
        _kill(process)
        with anyio.CancelScope(shield=True):
            await process.aclose()
    code_or_signal = process.returncode or 0
    timed_out = deadline.cancelled_caught
    return SandboxResult(
        stdout=out.text,
        stderr=err.text,
        exit_code=code_or_signal if code_or_signal >= 0 and not timed_out else None,
        signal=-code_or_signal if code_or_signal < 0 else None,
        timed_out=timed_out,
        truncated=bool(out.dropped or err.dropped),
        seconds=time.monotonic() - started,
        level="unsafe",
        over="wall" if timed_out else None,
    )


async def _feed(stream: anyio.abc.ByteSendStream, data: bytes) -> None:
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        await stream.send(data)
        await stream.aclose()


async def _keep(stream: anyio.abc.ByteReceiveStream, kept: Stream) -> None:
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for data in stream:
            kept.take(data)


def _kill(process: anyio.abc.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
