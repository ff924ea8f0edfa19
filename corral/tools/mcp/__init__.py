"""Tools of MCP servers for agents, and an agent's tools for MCP clients.

The official `mcp` package does the talking; it is loaded when a server is first used.
"""

from __future__ import annotations

from corral.tools.mcp.server import MCPServer

__all__ = ["MCPServer"]
