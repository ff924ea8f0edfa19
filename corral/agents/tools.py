"""An agent's tools: made of what it was given, narrowed, opened, and closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, TypeAlias, cast

from corral.errors import ConfigError
from corral.tools.function import FunctionTool, tool
from corral.tools.options import options_of
from corral.tools.sandbox import Permissions
from corral.tools.source import ToolSource
from corral.tools.tool import Closable, Narrowable, Tool

__all__ = ["AgentTools", "CanClose", "Given", "check_deps", "close_all"]

Given: TypeAlias = Tool | ToolSource | Callable[..., Any]
"""What an agent takes for a tool: one, a source of them, or a function to make one of."""


class CanClose(Protocol):
    """Anything that was opened for an agent."""

    async def aclose(self) -> None:
        """Close it."""
        ...


class AgentTools:
    """The tools of an agent: those that it was given, and those that its sources have."""

    def __init__(self, given: Sequence[Given], *, ceiling: Permissions | None = None) -> None:
        """Take tools, each narrowed to `ceiling` where it has permissions.

        Raises:
            ConfigError: One of them is no tool, or two have one name.
        """
        self._ceiling = ceiling
        made = [_as_tool(each) for each in given]
        self._sources = tuple(each for each in made if isinstance(each, ToolSource))
        self.own = self._narrowed([each for each in made if not isinstance(each, ToolSource)])
        """The tools that were given as such."""

    async def open(self, owned: list[CanClose]) -> tuple[Tool, ...]:
        """Make the tools ready, and ask the sources for theirs; adds what to close to `owned`.

        Raises:
            CorralError: One of them can't be had here.
        """
        for each in self.own:
            if isinstance(each, Closable):
                owned.append(each)
            await each.ready()
        found: list[Tool] = []
        for source in self._sources:
            owned.append(source)
            found.extend(await source.tools())
        more = self._narrowed(found)
        for each in more:
            await each.ready()
        return _distinct((*self.own, *more))

    def _narrowed(self, tools: Sequence[Tool]) -> tuple[Tool, ...]:
        if self._ceiling is None:
            return _distinct(tools)
        ceiling = self._ceiling
        return _distinct([e.narrowed(ceiling) if isinstance(e, Narrowable) else e for e in tools])


def _as_tool(given: Given) -> Tool | ToolSource:
    if isinstance(given, (Tool, ToolSource)):
        return given
    return _function_tool(given)


def _distinct(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    names = [each.spec.name for each in tools]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"Two tools are called {name!r}. Give one of them another name.")
    return tuple(tools)


def _function_tool(given: object) -> FunctionTool[..., Any]:
    if callable(given):
        return tool(cast("Callable[..., Any]", given))
    raise ConfigError(f"{given!r} is no tool. Give a function with types and a docstring.")


def check_deps(tools: Sequence[Tool], deps: object) -> None:
    """See that tools that want something in their `RunContext` will find something there.

    Raises:
        ConfigError: One of them wouldn't; says which, and what it wants.
    """
    for each in tools:
        wanted = options_of(each).deps
        if wanted is not None and deps is None:
            raise ConfigError(
                f"The tool {each.spec.name!r} wants a {wanted} in its RunContext, and there is "
                "none. Give it: Agent(deps=...), or deps=... for one turn."
            )


async def close_all(owned: Sequence[CanClose]) -> None:
    """Close all of it, the last opened first, whatever one of them may raise."""
    async with AsyncExitStack() as stack:
        for thing in owned:
            stack.push_async_callback(thing.aclose)
