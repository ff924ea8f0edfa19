"""A connection to a server: opened, used, lost and opened again, all in one event loop."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import anyio.abc
from mcp import MCPError, types
from mcp.client import Client, Transport
from pydantic import ValidationError

from corral.errors import ConfigError, CorralError, RuntimeUnavailable, ToolError
from corral.tools.http.headers import HeaderTemplates, hidden
from corral.tools.mcp.http import http_transport
from corral.tools.mcp.listing import MOST_TOOLS
from corral.tools.mcp.stdio import INHERITED, Stdio
from corral.tools.plain_text import plain, shortened

__all__ = ["Hub", "Server"]

_T = TypeVar("_T")

_START_SECONDS = 60.0
_ALIVE_SECONDS = 3.0
_MOST_PAGES = 100
_LONGEST_ERROR = 1000
_LONGEST_REMARK = 200
# Errors by which a server says that it works, and only the request was wrong.
_REQUEST_ERRORS = (types.INVALID_PARAMS, types.METHOD_NOT_FOUND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where a server is: a command to start, or a URL.

    Attributes:
        label: What it is called in messages.
        command: The program and its arguments, or None.
        url: Its URL, or None.
        env: Environment variables that the program gets besides the usual ones.
        headers: Header fields for the URL.
        folder: Where the program is started.
    """

    label: str
    command: Sequence[str] | None
    url: str | None
    env: Sequence[str]
    headers: HeaderTemplates
    folder: Path

    def environment(self) -> dict[str, str]:
        """The program's environment.

        Raises:
            ConfigError: A variable that it shall get isn't set.
        """
        for name in self.env:
            if name not in os.environ:
                raise ConfigError(
                    f"The MCP server {self.label!r} needs the environment variable {name!r}, which "
                    "is not set. Set it and start again."
                )
        return {name: os.environ[name] for name in (*INHERITED, *self.env) if name in os.environ}


class _Connection:
    """One connection, from opening to loss."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client: Client | None = None
        self._stdio: Stdio | None = None
        self._secrets: list[str] = []
        self._leave = anyio.Event()
        self.done = anyio.Event()
        self.why: str | None = None
        self.listed = False

    @property
    def alive(self) -> bool:
        return not self.done.is_set() and (self._stdio is None or self._stdio.ended is None)

    @property
    def client(self) -> Client:
        assert self._client is not None
        return self._client

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Connect, say so, and keep the connection until it is left. Owns all that belongs to it.

        Raises:
            CorralError: It could not connect.
        """
        failure: CorralError | None = None
        connected = False
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + _START_SECONDS) as scope:
                async with Client(self._transport(), cache=None) as self._client:
                    scope.deadline = float("inf")
                    connected = True
                    task_status.started()
                    await self._leave.wait()
            if scope.cancelled_caught:
                failure = self.unavailable(f"did not answer in {_START_SECONDS:g} seconds")
        except* CorralError as errors:
            failure = cast("CorralError", _first(errors))
        except* Exception as errors:
            self.why = self.told(_first(errors))
            failure = self.unavailable(f"can't be reached ({self.why})")
        finally:
            self.done.set()
        if failure is not None and not connected:
            raise failure

    def leave(self) -> None:
        """Have the connection closed; `done` is set once it is."""
        self._leave.set()

    def told(self, error: BaseException) -> str:
        """An error in words, without secrets and control characters."""
        said = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False)[0]
            said = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        said = hidden(plain(said), self._secrets) or type(error).__name__
        return shortened(said, _LONGEST_ERROR)

    def unavailable(self, what: str) -> RuntimeUnavailable:
        last = hidden(self._stdio.last_words(), self._secrets) if self._stdio else ""
        said = f" It said: {shortened(last, _LONGEST_ERROR)}" if last else ""
        remedy = "command" if self._server.command else "url"
        return RuntimeUnavailable(
            f"The MCP server {self._server.label!r} {what}. Check its {remedy}.{said}"
        )

    def lost(self) -> str:
        """What became of the connection, for the model."""
        if self._stdio is not None and self._stdio.ended is not None:
            lines = hidden(self._stdio.last_words(), self._secrets).splitlines()
            said = f", saying: {shortened(lines[-1], _LONGEST_REMARK)}" if lines else ""
            return f"{self._stdio.ended}{said}"
        return f"broke off ({self.why})" if self.why else "broke off"

    def _transport(self) -> Transport:
        server = self._server
        if server.url is not None:
            headers, self._secrets = server.headers.filled()
            return http_transport(server.url, headers)
        self._stdio = Stdio(server.command or (), env=server.environment(), folder=server.folder)
        self._secrets = [os.environ[name] for name in server.env]
        return self._stdio.transport()


class Hub:
    """Keeps one connection to a server, and opens another when it is lost."""

    def __init__(self, server: Server) -> None:
        """Be the hub of `server`. Nothing is opened yet."""
        self._server = server
        self._connection: _Connection | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._closing = anyio.Event()
        self._closed = anyio.Event()
        self._lock = anyio.Lock()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Own the connections until `close`. To be started before anything else is asked."""
        # A server's mishaps are told in our own words, not printed as tracebacks besides.
        for name in ("mcp", "client"):
            logging.getLogger(name).addHandler(logging.NullHandler())
        try:
            async with anyio.create_task_group() as self._group:
                task_status.started()
                await self._closing.wait()
                if self._connection is not None:
                    await _closed(self._connection)
                self._group.cancel_scope.cancel()
        finally:
            self._closed.set()

    async def close(self) -> None:
        """Close the connection and end `run`."""
        self._closing.set()
        await self._closed.wait()

    async def list_tools(self) -> list[types.Tool]:
        """The server's tools, all pages of them.

        Raises:
            CorralError: They can't be had.
        """
        connection = await self._connected()
        try:
            found = await self._ask(connection, _pages, _START_SECONDS)
        except ToolError as error:
            raise RuntimeUnavailable(f"{error} Its tools could not be listed.") from error
        if len(found) > MOST_TOOLS:
            raise ConfigError(
                f"The MCP server {self._server.label!r} has more than {MOST_TOOLS} tools, which is "
                "more than a model could choose from. Use another server."
            )
        connection.listed = True
        return found

    async def call_tool(
        self, name: str, arguments: dict[str, Any], seconds: float
    ) -> types.CallToolResult:
        """Call a tool of the server.

        Raises:
            ToolError: The server refused, gave no answer in time, or is gone. The next call
                connects anew.
        """
        try:
            connection = await self._connected()
        except CorralError as error:
            raise ToolError(str(error)) from error

        async def call(client: Client) -> types.CallToolResult:
            if not connection.listed:
                # The package puts arguments into headers as the listing of this connection says.
                await _pages(client)
                connection.listed = True
            params = types.CallToolRequestParams(name=name, arguments=arguments)
            # Not `client.call_tool`, which checks the result against the server's own schema: a
            # regular expression in that could keep the whole process busy for ever.
            return await client.session.send_request(
                types.CallToolRequest(params=params), types.CallToolResult
            )

        return await self._ask(connection, call, seconds)

    async def _ask(
        self,
        connection: _Connection,
        question: Callable[[Client], Awaitable[_T]],
        seconds: float,
    ) -> _T:
        name = f"The MCP server {self._server.label!r}"
        try:
            with anyio.move_on_after(seconds):
                return await question(connection.client)
            what = f"gave no answer in {seconds:g} seconds"
        except MCPError as error:
            what = f"refused: {connection.told(error)}"
            if error.code in _REQUEST_ERRORS:
                raise ToolError(f"{name} {what}") from error
        except (ValidationError, RuntimeError) as error:
            # What it sent isn't what the protocol, or its own output schema, says.
            raise ToolError(f"{name} sent a wrong answer: {connection.told(error)}") from error
        except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError) as error:
            what = f"can't be reached: {connection.told(error)}"
        if connection.alive and await _answers(connection):
            raise ToolError(f"{name} {what}")
        what = connection.lost() if not connection.alive else what
        await self._drop(connection)
        raise ToolError(f"{name} {what}. It is started or called anew at the next call.")

    async def _connected(self) -> _Connection:
        async with self._lock:
            if self._connection is not None and self._connection.alive:
                return self._connection
            if self._connection is not None:
                await _closed(self._connection)
                self._connection = None
            assert self._group is not None
            connection = _Connection(self._server)
            await self._group.start(connection.run)
            self._connection = connection
            return connection

    async def _drop(self, connection: _Connection) -> None:
        async with self._lock:
            await _closed(connection)
            if self._connection is connection:
                self._connection = None


async def _pages(client: Client) -> list[types.Tool]:
    """The tools that a server lists; of too many, one more than may be."""
    found: list[types.Tool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found.extend(page.tools)
        cursor = page.next_cursor
        if cursor is None or len(found) > MOST_TOOLS:
            break
    return found[: MOST_TOOLS + 1]


async def _closed(connection: _Connection) -> None:
    """Close a connection; at the end of this nothing of it is left."""
    connection.leave()
    with anyio.CancelScope(shield=True):
        await connection.done.wait()


async def _answers(connection: _Connection) -> bool:
    """Whether a server answers at all."""
    try:
        with anyio.fail_after(_ALIVE_SECONDS):
            await connection.client.list_tools()
            return connection.alive
    except (MCPError, ValidationError, RuntimeError, OSError, anyio.ClosedResourceError):
        return False


def _first(errors: ExceptionGroup[Any]) -> Exception:
    """The first error in a group, however deep."""
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = cast("ExceptionGroup[Exception]", error).exceptions[0]
    return error
