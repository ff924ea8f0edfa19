"""An agent's tools for MCP clients: checked, confined and bounded as they are for a model.

A tool that a person must approve is not offered, since here nobody could be asked.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from corral.errors import ConfigError, ToolError
from corral.messages import Attachment
from corral.tools.options import options_of
from corral.tools.schema import check_arguments
from corral.tools.tool import Checking, Tool, ToolContext, ToolOutput

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

__all__ = ["askless", "serve_http", "serve_stdio"]

_Scope: TypeAlias = MutableMapping[str, Any]
_App: TypeAlias = Callable[[_Scope, Any, Any], Awaitable[None]]

_HOST = "127.0.0.1"


def askless(tools: Sequence[Tool]) -> tuple[list[Tool], list[str]]:
    """The tools that may run without anybody being asked, and the names of the others."""
    free = [tool for tool in tools if options_of(tool).needs_approval is False]
    return free, [tool.spec.name for tool in tools if tool not in free]


async def serve_stdio(tools: Sequence[Tool], *, name: str, version: str) -> None:
    """Offer tools over this process's standard streams until the client closes them."""
    server = _server(tools, name=name, version=version)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def serve_http(
    tools: Sequence[Tool],
    *,
    name: str,
    version: str,
    port: int,
    token: str | None = None,
    started: Callable[[str], None] = lambda url: None,
) -> None:
    """Offer tools over streamable HTTP to programs of this machine, until cancelled.

    Args:
        tools: The tools.
        name: What the server calls itself.
        version: Its version.
        port: The port on 127.0.0.1; 0 for any that is free.
        token: What clients must send as `Authorization: Bearer TOKEN`; None to ask for nothing.
        started: Told the URL once it answers.

    Raises:
        ConfigError: The port is taken.
    """
    import uvicorn

    app: _App = _server(tools, name=name, version=version).streamable_http_app(host=_HOST)
    if token is not None:
        app = _guarded(app, token)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_HOST, port))
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"Port {port} on {_HOST} can't be used: {error.strerror}. Choose another."
        ) from error
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=3, lifespan="on"
    )
    with listening:
        listening.listen()
        started(f"http://{_HOST}:{listening.getsockname()[1]}/mcp")
        await uvicorn.Server(config).serve(sockets=[listening])


def _server(tools: Sequence[Tool], *, name: str, version: str) -> Server[Any]:
    offered = {tool.spec.name: tool for tool in tools}
    alone = {tool.spec.name: anyio.Lock() for tool in tools if not options_of(tool).parallel}
    key = secrets.token_hex(8)

    async def list_tools(
        context: ServerRequestContext[Any, Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=tool.spec.name,
                    description=tool.spec.description,
                    input_schema=tool.spec.parameters,
                )
                for tool in offered.values()
            ]
        )

    async def call_tool(
        context: ServerRequestContext[Any, Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = offered.get(params.name)
        if tool is None:
            return _result(_error(f"There is no tool {params.name!r}."))
        where = ToolContext(
            session=_session(context, key), turn_id="mcp", call_id=secrets.token_hex(8)
        )
        lock = alone.get(params.name)
        if lock is None:
            return _result(await _call(tool, params.arguments or {}, where))
        async with lock:
            return _result(await _call(tool, params.arguments or {}, where))

    return Server(name, version=version, on_list_tools=list_tools, on_call_tool=call_tool)


def _session(context: ServerRequestContext[Any, Any], key: str) -> str:
    """Whose state a stateful tool goes on with.

    Over standard streams there is one client. Over HTTP each has a session of the protocol's, or
    none, and then every call stands by itself: one client must not find what another left.
    """
    if context.request is None:
        return f"mcp-{key}"
    own = context.request.headers.get("mcp-session-id")
    return f"mcp-{key}-{own}" if own else f"mcp-{secrets.token_hex(8)}"


async def _call(tool: Tool, arguments: dict[str, Any], context: ToolContext) -> ToolOutput:
    seconds = options_of(tool).timeout
    try:
        check_arguments(arguments, tool.spec.parameters, tool=tool.spec.name)
        if isinstance(tool, Checking):
            tool.check(arguments)
        with anyio.move_on_after(seconds):
            return await tool.call(arguments, context)
        return _error(f"{tool.spec.name} was given up after {seconds:g} seconds.")
    except ToolError as error:
        return _error(str(error))
    except Exception as error:  # the tool's own fault; the client reads what a model would
        return _error(f"{type(error).__name__}: {error}")


def _error(said: str) -> ToolOutput:
    return ToolOutput(content=said, is_error=True)


def _result(output: ToolOutput) -> types.CallToolResult:
    content = output.content
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    blocks: list[types.ContentBlock] = [types.TextContent(text=text)]
    blocks.extend(_file(attachment) for attachment in output.attachments)
    if isinstance(content, dict) and not output.is_error:
        return types.CallToolResult(content=blocks, structured_content=content)
    return types.CallToolResult(content=blocks, is_error=output.is_error)


def _file(attachment: Attachment) -> types.ContentBlock:
    data = base64.b64encode(attachment.data).decode()
    if attachment.media_type.startswith("image/"):
        return types.ImageContent(data=data, mime_type=attachment.media_type)
    return types.EmbeddedResource(
        resource=types.BlobResourceContents(
            uri=f"corral:///{attachment.name}", mime_type=attachment.media_type, blob=data
        )
    )


def _guarded(app: _App, token: str) -> _App:
    """`app`, answering only requests that bear the token."""
    wanted = f"Bearer {token}".encode()

    async def guarded(scope: _Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, wanted):
                await send(
                    {
                        "type": "http.response.start",
                        "status": 401,
                        "headers": [(b"www-authenticate", b"Bearer"), (b"content-length", b"0")],
                    }
                )
                await send({"type": "http.response.body", "body": b""})
                return
        await app(scope, receive, send)

    return guarded
