"""What a server says of its tools, checked before a model reads any of it.

Names, descriptions and schemas are text from a stranger that goes into every prompt. They are
bounded, freed of control characters, and of what would make this process work for the server: a
regular expression can be written so that it never ends, so none is kept. The server checks its
arguments itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from corral.errors import ConfigError
from corral.messages import ToolSpec
from corral.tools.plain_text import plain, shortened
from corral.tools.schema import check_parameters

if TYPE_CHECKING:
    from mcp import types

__all__ = ["MOST_TOOLS", "Offered", "Selection", "offered"]

MOST_TOOLS = 256
"""How many tools one server may have."""

_LONGEST_NAME = 64
_LONGEST_DESCRIPTION = 1000
_LONGEST_REMARK = 300
_DROPPED = ("$schema", "$id", "$comment", "title", "examples", "pattern", "patternProperties")
_NAMED = ("properties", "$defs", "definitions", "dependentSchemas")
_VALUES = ("default", "enum", "const", "required")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of a server's tools are taken, and how they are named.

    Attributes:
        only: The names of those that are; None for all.
        leave_out: The names of those that aren't.
        prefix: What their names begin with here.
    """

    only: Collection[str] | None = None
    leave_out: Collection[str] = ()
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool: how a model is shown it, and what the server calls it."""

    spec: ToolSpec
    name: str


def offered(
    tools: Sequence[types.Tool], selection: Selection, *, server: str
) -> tuple[Offered, ...]:
    """The tools that are taken, in the server's order.

    Args:
        tools: What the server lists.
        selection: Which are wanted.
        server: What the server is called in messages.

    Raises:
        ConfigError: A name that was asked for isn't there, two tools would bear one name, or one
            that is wanted can't be used.
    """
    there = [tool.name for tool in tools]
    for name in (*(selection.only or ()), *selection.leave_out):
        if name not in there:
            near = get_close_matches(name, there, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(there[:20])}."
            raise ConfigError(f"The MCP server {server!r} has no tool {name!r}. {hint}")
    taken: dict[str, Offered] = {}
    for tool in tools:
        wanted = selection.only is None or tool.name in selection.only
        if not wanted or tool.name in selection.leave_out:
            continue
        spec = _spec(tool, selection.prefix, server)
        if spec.name in taken:
            raise ConfigError(
                f"Two tools of the MCP server {server!r} would be called {spec.name!r} here. Leave "
                f"one out with except: [{tool.name!r}]."
            )
        taken[spec.name] = Offered(spec, tool.name)
    return tuple(taken.values())


def _spec(tool: types.Tool, prefix: str, server: str) -> ToolSpec:
    name = re.sub(r"[^A-Za-z0-9_]", "_", f"{prefix}{tool.name}")[:_LONGEST_NAME]
    if not name or name[0].isdigit():
        name = f"_{name}"
    said = " ".join(plain(tool.description or tool.title or tool.name).split())
    try:
        parameters = check_parameters(_tamed(tool.input_schema), tool=plain(tool.name))
    except (ConfigError, RecursionError) as error:
        raise ConfigError(
            f"The tool {tool.name!r} of the MCP server {server!r} can't be used: {error} "
            f"Leave it out with except: [{tool.name!r}]."
        ) from error
    return ToolSpec(
        name=name, description=shortened(said, _LONGEST_DESCRIPTION), parameters=parameters
    )


def _tamed(schema: Any, *, named: bool = False) -> Any:
    """A schema without what is dropped, and with its remarks bounded."""
    if isinstance(schema, list):
        return [_tamed(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    tamed: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", schema).items():
        if named:
            tamed[key] = _tamed(value)
        elif key in _DROPPED:
            continue
        elif key == "description":
            tamed[key] = shortened(" ".join(plain(str(value)).split()), _LONGEST_REMARK)
        elif key in _VALUES:
            tamed[key] = value
        else:
            tamed[key] = _tamed(value, named=key in _NAMED)
    return tamed
