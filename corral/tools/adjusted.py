"""Any tool, with other options: the same tool, but asked about, or bounded, or run alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypedDict, Unpack

from pydantic import JsonValue

from corral.messages import ToolSpec
from corral.tools.options import NeedsApproval, ToolOptions, options_of
from corral.tools.sandbox import Permissions
from corral.tools.tool import Checking, Closable, Narrowable, Tool, ToolContext, ToolOutput

__all__ = ["AdjustedTool", "with_options"]


class _Changes(TypedDict, total=False):
    timeout: float | None
    retries: int
    parallel: bool
    needs_approval: NeedsApproval


def with_options(tool: Tool, **changes: Unpack[_Changes]) -> AdjustedTool:
    """The same tool with some of its options changed.

        Agent(tools=[with_options(CodeInterpreter(), needs_approval=True)], ...)

    Args:
        tool: Any tool.
        changes: Fields of `ToolOptions`: `timeout`, `retries`, `parallel`, `needs_approval`.

    Raises:
        ConfigError: One of them can't be kept to.
    """
    values: dict[str, Any] = {**changes}
    return AdjustedTool(tool, replace(options_of(tool), **values))


class AdjustedTool:
    """A tool that is another one but for its options. See `with_options`."""

    def __init__(self, tool: Tool, options: ToolOptions) -> None:
        """Stand for `tool`, run with `options`."""
        self._tool = tool
        self._options = options

    @property
    def spec(self) -> ToolSpec:
        """How the model is shown the tool."""
        return self._tool.spec

    @property
    def options(self) -> ToolOptions:
        """How its calls are run."""
        return self._options

    async def ready(self) -> None:
        """See that the tool can run; raises what the tool raises."""
        await self._tool.ready()

    def check(self, arguments: dict[str, JsonValue]) -> None:
        """See that a call could run with these arguments, as far as the tool can tell."""
        if isinstance(self._tool, Checking):
            self._tool.check(arguments)

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Run the tool once; raises what the tool raises."""
        return await self._tool.call(arguments, context)

    def narrowed(self, ceiling: Permissions) -> Tool:
        """The tool with its permissions narrowed, where it has any."""
        if not isinstance(self._tool, Narrowable):
            return self
        return AdjustedTool(self._tool.narrowed(ceiling), self._options)

    async def aclose(self) -> None:
        """Close the tool, where it holds anything open."""
        if isinstance(self._tool, Closable):
            await self._tool.aclose()
