"""`MCPServer`: the tools of a server, as tools of an agent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
from pydantic import JsonValue

from corral.errors import ConfigError
from corral.messages import ToolSpec
from corral.tools.http.headers import HeaderTemplates
from corral.tools.mcp.listing import Selection, offered
from corral.tools.mcp.portal import Portal
from corral.tools.mcp.results import as_output
from corral.tools.options import ToolOptions
from corral.tools.tool import Tool, ToolContext, ToolOutput

if TYPE_CHECKING:
    from corral.tools.mcp.connection import Hub

__all__ = ["MCPServer"]

_SECONDS = 60.0
_MORE_SECONDS = 15.0
"""What a call may take beyond its timeout, to see whether the server is alive and to end it."""


class MCPServer:
    """A server that speaks the Model Context Protocol, as a source of tools for an agent.

        Agent(tools=[MCPServer(command=["uvx", "mcp-server-time"], only=["convert_time"])], ...)

    A server that is started here is a program of the user's choice, and runs with the user's
    rights: it is not sandboxed. What it says is data from a stranger all the same. A server that
    dies, hangs or floods costs one call, which fails with a message, and is started or called anew
    at the next.
    """

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        url: str | None = None,
        env: Sequence[str] = (),
        headers: dict[str, str] | None = None,
        only: Sequence[str] | None = None,
        leave_out: Sequence[str] = (),
        prefix: str = "",
        timeout: float = _SECONDS,
        needs_approval: bool | Sequence[str] = False,
        folder: Path | None = None,
        name: str | None = None,
    ) -> None:
        """Describe the server. Nothing is started yet.

        Args:
            command: The program to start and its arguments; it is spoken with over its standard
                streams, and ended with the agent.
            url: Or the server's URL, for streamable HTTP.
            env: Environment variables that the program gets besides `PATH`, `HOME` and the like.
            headers: Header fields for the URL; `${NAME}` in a value is an environment variable.
            only: The server's names of the tools that are taken; by default all.
            leave_out: The server's names of tools that are not.
            prefix: What the tools' names begin with here, so that two servers don't clash.
            timeout: Seconds that a call may take.
            needs_approval: Whether a person is asked before a call; or the server's names of the
                tools for which that is so.
            folder: Where the program is started; by default the current folder.
            name: What the server is called in messages.

        Raises:
            ConfigError: There is neither a command nor a URL, or both, or something else of it
                can't be used.
        """
        if (command is None) == (url is None):
            raise ConfigError("An MCP server has either a command or a url. Give one of them.")
        if command is not None and (not command or not command[0]):
            raise ConfigError("The command of an MCP server is empty. Name the program.")
        if url is not None:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ConfigError(f"{url!r} is no URL of an MCP server. Write https://HOST/mcp.")
        if (headers and url is None) or (env and command is None):
            raise ConfigError("env is for an MCP server's command, headers are for its url.")
        self._command = list(command) if command else None
        self._url = url
        own = Path(command[0]).name if command else urlsplit(url or "").netloc.rpartition("@")[2]
        self._label = name or own
        self._env = tuple(env)
        self._headers = HeaderTemplates(headers or {}, of=f"the MCP server {self._label!r}")
        self._selection = Selection(only=only, leave_out=tuple(leave_out), prefix=prefix)
        self._options = ToolOptions(timeout=timeout + _MORE_SECONDS)
        self._timeout = timeout
        self._ask = needs_approval
        self._folder = folder or Path.cwd()
        self._portal = Portal(f"mcp {self._label}")
        self._hub: Hub | None = None

    async def tools(self) -> Sequence[Tool]:
        """Connect, unless that is done, and list the tools.

        Raises:
            ConfigError: The `mcp` package isn't installed, a variable isn't set, or a tool can't
                be used.
            RuntimeUnavailable: The server can't be reached.
        """
        hub = await self._opened()
        try:
            listed = await self._portal.call(hub.list_tools)
            found = offered(listed, self._selection, server=self._label)
            names = [each.name for each in found]
            for name in self._ask if not isinstance(self._ask, bool) else ():
                if name not in names:
                    raise ConfigError(
                        f"needs_approval names {name!r}, which is no tool of the MCP server "
                        f"{self._label!r} that is used. Mend the name."
                    )
        except BaseException:
            await self.aclose()
            raise
        return [_MCPTool(self, each.spec, each.name, self._options_of(each.name)) for each in found]

    async def call(self, tool: str, arguments: dict[str, JsonValue], *, shown: str) -> ToolOutput:
        """Call a tool by the server's own name for it; `shown` is the name here.

        Raises:
            ToolError: It failed.
        """
        hub = await self._opened()
        result = await self._portal.call(hub.call_tool, tool, arguments, self._timeout)
        return as_output(result, tool=shown)

    async def aclose(self) -> None:
        """Close the connection; a server that was started here is ended. Safe to call twice."""
        hub, self._hub = self._hub, None
        with anyio.CancelScope(shield=True):
            if hub is not None and self._portal.running:
                await self._portal.call(hub.close)
            await self._portal.stop()

    def _options_of(self, name: str) -> ToolOptions:
        asks = self._ask if isinstance(self._ask, bool) else name in self._ask
        return ToolOptions(timeout=self._options.timeout, needs_approval=asks)

    async def _opened(self) -> Hub:
        if self._hub is None:
            try:
                from corral.tools.mcp.connection import Hub, Server
            except ImportError as error:
                raise ConfigError(
                    f"The MCP server {self._label!r} needs the package mcp, version 2 or later. "
                    "Install it: pip install 'llama-corral[mcp]'"
                ) from error
            hub = Hub(
                Server(
                    label=self._label,
                    command=self._command,
                    url=self._url,
                    env=self._env,
                    headers=self._headers,
                    folder=self._folder,
                )
            )
            await self._portal.start(hub.run)
            self._hub = hub
        return self._hub


class _MCPTool:
    """One tool of a server."""

    def __init__(self, server: MCPServer, spec: ToolSpec, name: str, options: ToolOptions) -> None:
        self._server = server
        self._spec = spec
        self._name = name
        self.options = options

    @property
    def spec(self) -> ToolSpec:
        """How the model is shown the tool."""
        return self._spec

    async def ready(self) -> None:
        """The server has listed the tool, so it can be called."""

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Have the server run the tool once; raises ToolError."""
        return await self._server.call(self._name, arguments, shown=self._spec.name)
