"""A source of tools: something that knows its tools only once it is connected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from corral.tools.tool import Tool

__all__ = ["ToolSource"]


@runtime_checkable
class ToolSource(Protocol):
    """Where tools come from that can't be listed beforehand, such as an MCP server.

    An agent given one among its tools asks it when the agent is opened, and closes it when the
    agent is closed. Opening and closing may happen in different tasks, and in different event
    loops.
    """

    async def tools(self) -> Sequence[Tool]:
        """Connect, unless that is done, and list the tools.

        Raises:
            CorralError: It can't be reached, or its tools can't be used; the message says what to
                do.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what was opened. `tools` opens it again."""
        ...
