"""What the tools that are made from settings, and not from a function, have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import JsonValue

from corral.messages import ToolSpec
from corral.tools.options import ToolOptions
from corral.tools.permitted import Permitted
from corral.tools.sandbox import Permissions
from corral.tools.tool import ToolContext, ToolOutput

__all__ = ["ConfiguredTool"]


class ConfiguredTool(Permitted, ABC):
    """A tool made from settings: it has permissions, and options that say how calls are run.

    Attributes:
        options: How its calls are run; the agent keeps to them.
    """

    def __init__(
        self,
        spec: ToolSpec,
        *,
        permissions: Permissions | None = None,
        options: ToolOptions | None = None,
    ) -> None:
        """Take the settings.

        Args:
            spec: How the model is shown the tool.
            permissions: What it may touch.
            options: How its calls are run.
        """
        self._spec = spec
        self._permissions = permissions or Permissions()
        self.options = options or ToolOptions()

    @property
    def spec(self) -> ToolSpec:
        """How the model is shown the tool."""
        return self._spec

    @abstractmethod
    async def ready(self) -> None:
        """See that the tool can run on this machine.

        Raises:
            CorralError: It can't; the message says what to do.
        """

    @abstractmethod
    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Run the tool once.

        Raises:
            ToolError: It failed; the message goes to the model.
        """
