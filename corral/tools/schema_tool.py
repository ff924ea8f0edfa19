"""A tool from a name, a description, a JSON Schema and a function that takes the arguments as JSON.

For tools that are known only when the program runs, and so can't be written as typed functions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import JsonValue

from corral.messages import ToolSpec
from corral.tools.context import RunContext
from corral.tools.function import as_output, call_function
from corral.tools.options import ToolOptions
from corral.tools.schema import check_arguments, check_parameters
from corral.tools.tool import ToolOutput

__all__ = ["SchemaTool"]

_DEFAULTS = ToolOptions()


class SchemaTool:
    """A tool whose arguments are described by a JSON Schema, and whose function takes them so.

    tool = SchemaTool("lookup", "Look a word up.", schema, lookup)
    """

    def __init__(
        self,
        name: str,
        description: str,
        parameters: Mapping[str, Any] | None,
        function: Callable[[dict[str, JsonValue], RunContext[Any]], Any],
        *,
        options: ToolOptions = _DEFAULTS,
    ) -> None:
        """Make the tool.

        Args:
            name: What the model calls it.
            description: What it does, for the model.
            parameters: The JSON Schema (draft 2020-12) of its arguments, an object; None for none.
            function: Called with the arguments, which the schema admits, and the run's context;
                async, or sync in a worker thread. Returns any JSON, or a `ToolOutput`.
            options: How its calls are run.

        Raises:
            ConfigError: `parameters` is no such schema.
        """
        self._spec = ToolSpec(
            name=name, description=description, parameters=check_parameters(parameters, tool=name)
        )
        self._function = function
        self._options = options

    @property
    def spec(self) -> ToolSpec:
        """How the model is shown the tool."""
        return self._spec

    @property
    def options(self) -> ToolOptions:
        """How its calls are run."""
        return self._options

    async def ready(self) -> None:
        """A function of this process can always be called."""

    async def call(self, arguments: dict[str, JsonValue], context: RunContext[Any]) -> ToolOutput:
        """Call the function once.

        Raises:
            ToolError: The schema doesn't admit the arguments, or the result is no JSON.
        """
        name = self._spec.name
        check_arguments(arguments, self._spec.parameters, tool=name)
        # A copy: what the model asked for is on record and must stay what it was.
        result = await call_function(self._function, copy.deepcopy(arguments), context)
        return as_output(result, tool=name)
