"""What a tool is: a name and a schema that the model sees, and a call that the agent makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pydantic import JsonValue

from corral.messages import Attachment, ToolSpec

__all__ = ["Tool", "ToolContext", "ToolOutput"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """Where a call comes from."""

    session: str
    turn_id: str
    call_id: str


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
