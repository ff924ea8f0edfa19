"""A server as a child process, spoken with over its standard streams; one JSON message a line.

Unlike the transport of the `mcp` package this one bounds what a server may send, keeps its error
stream for messages instead of printing it, and passes on a handful of environment variables.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import anyio
import anyio.lowlevel
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client import Transport
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from corral.errors import RuntimeUnavailable
from corral.tools.plain_text import plain

__all__ = ["INHERITED", "Stdio"]

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TMPDIR")
"""The environment variables that every server gets, where they are set."""

_LONGEST_MESSAGE = 16 << 20
_MOST_UNASKED = 64 << 20
"""How many bytes a server may send after one message of ours."""
_LAST_WORDS = 2000
_GRACE_SECONDS = 2.0
_KILL_SECONDS = 5.0
_LAST_SECONDS = 0.2

_Incoming = SessionMessage | Exception


class _Pipe(ByteReceiveStream, ByteSendStream):
    """Our end of a pipe. Unlike asyncio's it is closed when it is closed, whatever is left in it.

    And unlike asyncio's it has no say in whether the process counts as ended: what the process
    started may go on holding the other end.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._closed = False

    async def receive(self, max_bytes: int = 65_536) -> bytes:
        """What there is to read, or EndOfStream."""
        while not self._closed:
            try:
                data = os.read(self._descriptor, max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._descriptor)
                continue
            if not data:
                raise anyio.EndOfStream
            # A flood must not keep the loop from everything else.
            await anyio.lowlevel.checkpoint()
            return data
        raise anyio.ClosedResourceError

    async def send(self, item: bytes) -> None:
        """Write all of it; raises OSError when nobody reads any more."""
        rest = memoryview(item)
        while rest and not self._closed:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                await anyio.wait_writable(self._descriptor)
        if rest:
            raise anyio.ClosedResourceError

    async def aclose(self) -> None:
        """Close it, and wake whoever waits for it."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._descriptor)
            os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class _Child:
    """The process, and our ends of its standard streams."""

    process: Process
    stdin: _Pipe
    stdout: _Pipe
    stderr: _Pipe


class Stdio:
    """One run of a server's process."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], folder: Path) -> None:
        """Start `command` in `folder` when connected, with the environment `env`."""
        self._command = list(command)
        self._env = dict(env)
        self._folder = folder
        self._stderr = b""
        self._unasked = 0
        self.ended: str | None = None
        """Why nothing more comes, once nothing does."""

    def transport(self) -> Transport:
        """The process as the `mcp` package's client takes it; to be entered once."""
        return cast("Transport", self._run())

    def last_words(self) -> str:
        """The end of what the process wrote to its error stream."""
        return plain(self._stderr.decode(errors="replace")).strip()

    @asynccontextmanager
    async def _run(
        self,
    ) -> AsyncGenerator[
        tuple[MemoryObjectReceiveStream[_Incoming], MemoryObjectSendStream[SessionMessage]]
    ]:
        child = await self._start()
        incoming, read = anyio.create_memory_object_stream[_Incoming](0)
        write, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, child.stdout, incoming)
            tasks.start_soon(self._write, child.stdin, outgoing, incoming)
            tasks.start_soon(self._listen, child.stderr)
            tasks.start_soon(self._watch, child.process, incoming)
            try:
                yield read, write
            finally:
                self.ended = self.ended or "was closed"
                with anyio.CancelScope(shield=True):
                    await child.stdin.aclose()
                    await _end(child.process)
                    for each in (child.stdout, child.stderr, read, write, incoming, outgoing):
                        await each.aclose()
                tasks.cancel_scope.cancel()

    async def _start(self) -> _Child:
        (stdin, ours), (out, stdout), (err, stderr) = os.pipe(), os.pipe(), os.pipe()
        try:
            process = await anyio.open_process(
                self._command,
                env=self._env,
                cwd=self._folder,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                # A group of its own, so that what it starts can be ended with it.
                start_new_session=True,
            )
        except BaseException as error:
            for descriptor in (ours, out, err):
                os.close(descriptor)
            if not isinstance(error, OSError):
                raise
            raise RuntimeUnavailable(
                f"The MCP server {self._command[0]!r} can't be started: "
                f"{error.strerror or error}. Check its command."
            ) from error
        finally:
            for descriptor in (stdin, stdout, stderr):
                os.close(descriptor)
        return _Child(process, _Pipe(ours), _Pipe(out), _Pipe(err))

    async def _read(self, stdout: _Pipe, incoming: MemoryObjectSendStream[_Incoming]) -> None:
        lines = BufferedByteReceiveStream(stdout)
        async with incoming:
            try:
                while True:
                    line = await lines.receive_until(b"\n", _LONGEST_MESSAGE)
                    self._unasked += len(line)
                    if self._unasked > _MOST_UNASKED:
                        raise anyio.DelimiterNotFound(_MOST_UNASKED)
                    if line.strip():
                        await incoming.send(_message(line))
            except (anyio.IncompleteRead, anyio.EndOfStream):
                self.ended = self.ended or "ended"
            except anyio.DelimiterNotFound as error:
                self.ended = f"sent more than it may ({error})"
            except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
                self.ended = self.ended or "broke off"

    async def _write(
        self,
        stdin: _Pipe,
        outgoing: MemoryObjectReceiveStream[SessionMessage],
        incoming: MemoryObjectSendStream[_Incoming],
    ) -> None:
        try:
            async with outgoing:
                async for message in outgoing:
                    self._unasked = 0
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await stdin.send(f"{text}\n".encode())
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            # The client must not wait for an answer to what was never sent.
            self.ended = self.ended or "takes no messages"
            await incoming.aclose()

    async def _watch(self, process: Process, incoming: MemoryObjectSendStream[_Incoming]) -> None:
        """See the process's end also where something that it started holds its streams open."""
        await process.wait()
        self.ended = self.ended or "ended"
        await anyio.sleep(_LAST_SECONDS)  # What it said last is still on its way.
        await incoming.aclose()

    async def _listen(self, stderr: _Pipe) -> None:
        try:
            async for chunk in stderr:
                self._stderr = (self._stderr + chunk)[-_LAST_WORDS:]
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
            pass


def _message(line: bytes) -> _Incoming:
    """One message; a line that is none is handed on as what is wrong with it."""
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error


async def _end(process: Process) -> None:
    """End the process and all that it started. It has seen its input end; then comes force."""
    if not await _exits(process, _GRACE_SECONDS):
        _signal_group(process, signal.SIGTERM)
        await _exits(process, _GRACE_SECONDS)
    _signal_group(process, signal.SIGKILL)
    await _exits(process, _KILL_SECONDS)


async def _exits(process: Process, seconds: float) -> bool:
    """Whether the process ends in time."""
    with anyio.move_on_after(seconds):
        await process.wait()
    return process.returncode is not None


def _signal_group(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
