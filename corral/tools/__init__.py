"""Tools: what they are, how functions become tools, and where untrusted code runs."""

from __future__ import annotations

from corral.tools.adjusted import with_options
from corral.tools.code_interpreter import CodeInterpreter
from corral.tools.command import CommandTool
from corral.tools.context import RunContext
from corral.tools.function import FunctionTool, tool
from corral.tools.http import HttpTool
from corral.tools.mcp import MCPServer
from corral.tools.options import ToolOptions
from corral.tools.schema_tool import SchemaTool
from corral.tools.source import ToolSource
from corral.tools.tool import Tool, ToolContext, ToolOutput

__all__ = [
    "CodeInterpreter",
    "CommandTool",
    "FunctionTool",
    "HttpTool",
    "MCPServer",
    "RunContext",
    "SchemaTool",
    "Tool",
    "ToolContext",
    "ToolOptions",
    "ToolOutput",
    "ToolSource",
    "tool",
    "with_options",
]
