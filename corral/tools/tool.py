"""What a tool is: a name and a schema that the model sees, and a call that the agent makes.

`Tool` is all that a tool must be. A tool may also have `options` (`corral.tools.options`), and what
the smaller protocols here name: they are looked for one by one, so a tool has only those it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from pydantic import JsonValue

from corral.messages import Attachment, ToolSpec
from corral.tools.context import RunContext
from corral.tools.sandbox import Permissions

__all__ = ["Checking", "Closable", "Narrowable", "Tool", "ToolContext", "ToolOutput"]

ToolContext: TypeAlias = RunContext[object]
"""Where a call comes from: `RunContext`, whatever the program's own things are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutput:
    """What a call gives back to the model. An error's content is text that says what was wrong.

    `attachments` are files for the caller; the model doesn't see them.
    """

    content: JsonValue
    is_error: bool = False
    attachments: tuple[Attachment, ...] = ()


@runtime_checkable
class Tool(Protocol):
    """A tool of an agent.

    Arguments that reach `call` have been checked against the tool's schema.
    """

    @property
    def spec(self) -> ToolSpec:
        """How the model is shown the tool."""
        ...

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Run the tool once.

        Raises:
            ToolError: It failed; the message goes to the model.
        """
        ...

    async def ready(self) -> None:
        """See that the tool can run on this machine, before a model is offered it.

        Raises:
            CorralError: It can't; the message says what to do.
        """
        ...


@runtime_checkable
class Checking(Protocol):
    """A tool that knows more of its arguments than its schema says."""

    def check(self, arguments: dict[str, JsonValue]) -> None:
        """See that a call could run with these arguments, before anybody is asked to approve it.

        Raises:
            ToolError: It couldn't; the message goes to the model.
        """
        ...


@runtime_checkable
class Closable(Protocol):
    """A tool that holds something open. An agent closes its tools when it is closed."""

    async def aclose(self) -> None:
        """Let go of it. Safe to call twice; a later `ready` or call may open it again."""
        ...


@runtime_checkable
class Narrowable(Protocol):
    """A tool with permissions, which an agent may narrow."""

    def narrowed(self, ceiling: Permissions) -> Tool:
        """The same tool, allowed only what `ceiling` allows as well."""
        ...
