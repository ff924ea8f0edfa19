"""A real MCP server, made with the official package.

Run as `python mcp_server.py [http PORT]`.
"""

from __future__ import annotations

import os
import sys

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.utilities.types import Image
from pydantic import BaseModel

server = MCPServer("ordinary")


class Weather(BaseModel):
    city: str
    degrees: float


@server.tool()
def add(a: int, b: int = 10) -> int:
    """Add two numbers.\x1b[31m"""
    return a + b


@server.tool(name="get-weather.today")
def weather(city: str) -> Weather:
    """Tell the weather."""
    return Weather(city=city, degrees=21.5)


@server.tool()
def say(text: str) -> str:
    """Say a text."""
    return text


@server.tool()
def fail(why: str) -> str:
    """Fail."""
    from mcp.server.mcpserver.exceptions import ToolError

    raise ToolError(why)


@server.tool()
def picture() -> Image:
    """Draw."""
    return Image(data=b"\x89PNG picture", format="png")


@server.tool()
def pid() -> int:
    """Tell the process's id."""
    return os.getpid()


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run()
