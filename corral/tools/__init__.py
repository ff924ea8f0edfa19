"""Tools: what they are, how functions become tools, and where untrusted code runs."""

from __future__ import annotations

from corral.tools.code_interpreter import CodeInterpreter
from corral.tools.function import FunctionTool, tool
from corral.tools.tool import Tool, ToolContext, ToolOutput

__all__ = ["CodeInterpreter", "FunctionTool", "Tool", "ToolContext", "ToolOutput", "tool"]
