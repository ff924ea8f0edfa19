"""`@tool`: a typed Python function, as a tool.

The schema comes from the signature and the docstring (`corral.tools.signature`), which also turn
the model's JSON into the function's own types. The function runs in this process, with all its
rights: it is the user's code, not the model's. What comes from the model is only its arguments, and
those have been checked. `isolated=True` is for a function that shall have fewer rights than that.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec, Self, TypeVar, cast, overload

import anyio.to_thread
from pydantic import JsonValue
from pydantic_core import from_json, to_json

from corral.errors import ConfigError, ToolError
from corral.messages import ToolSpec
from corral.tools.context import RunContext
from corral.tools.options import NeedsApproval, ToolOptions
from corral.tools.sandbox import Permissions
from corral.tools.signature import read_signature
from corral.tools.tool import ToolOutput

__all__ = ["FunctionTool", "as_output", "call_function", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

_DEFAULTS = ToolOptions()


class FunctionTool(Generic[P, R]):
    """A function as a tool. It can still be called like the function it was made from.

    A tool made of a method is a tool of each instance: `Garden().water` is one, `Garden.water` is
    not.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        options: ToolOptions = _DEFAULTS,
    ) -> None:
        """Make a tool of a function.

        Args:
            function: A function, sync or async, a method, a `functools.partial`, or an object that
                can be called.
            name: What the model calls it; by default the function's name.
            description: What it does; by default the docstring up to its first section.
            options: How its calls are run.

        Raises:
            ConfigError: A parameter has no type, no JSON Schema can be made of it, or the function
                says nothing of what it does.
        """
        self._function = function
        self._signature = read_signature(function, name=name, description=description)
        self._options = ToolOptions(
            timeout=options.timeout,
            retries=options.retries,
            parallel=options.parallel,
            needs_approval=options.needs_approval,
            deps=self._signature.deps,
        )
        self.__name__ = self._signature.spec.name
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self._function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        """The tool of an instance, where the function is a method."""
        if instance is None or not self._signature.is_method:
            return self
        bound = copy.copy(self)
        bound._function = cast("Any", self._function).__get__(instance, owner)
        bound._signature = read_signature(
            bound._function, name=self.spec.name, description=self.spec.description
        )
        return bound

    @property
    def spec(self) -> ToolSpec:
        """How the model is shown the tool."""
        return self._signature.spec

    @property
    def options(self) -> ToolOptions:
        """How its calls are run."""
        return self._options

    async def ready(self) -> None:
        """See that the function can be called: a function of this process always can.

        Raises:
            ConfigError: It is a method, and nothing says of what.
        """
        if self._signature.is_method:
            raise ConfigError(
                f"The tool {self.__name__!r} is a method without its object. Make the object, and "
                f"give the agent its {self.__name__!r}."
            )

    def check(self, arguments: dict[str, JsonValue]) -> None:
        """See that a call could run with these arguments.

        Raises:
            ToolError: They aren't what the function's types ask for.
        """
        self._signature.bind(arguments)

    async def call(self, arguments: dict[str, JsonValue], context: RunContext[Any]) -> ToolOutput:
        """Run the function once; a sync one in a worker thread.

        A thread can't be stopped: when a call of a sync function is given up, at its timeout or
        because its turn was, the function goes on by itself and what it returns is dropped.

        Raises:
            ToolError: The arguments aren't what its types ask for, or its result is no JSON.
        """
        positional, named = self._signature.bind(arguments)
        if self._signature.takes_context:
            positional.insert(0, context)
        function = cast("Callable[..., Any]", self._function)
        return as_output(await call_function(function, *positional, **named), tool=self.__name__)


async def call_function(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """Call a function as a tool's function is called: awaited, or in a thread that may be left."""
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  (the method itself is what is asked about)
    ):
        return await cast("Awaitable[Any]", function(*args, **named))
    result = await anyio.to_thread.run_sync(
        lambda: function(*args, **named), abandon_on_cancel=True
    )
    return await result if inspect.isawaitable(result) else result


def as_output(result: object, *, tool: str) -> ToolOutput:
    """What a function returned, as a tool's output. A `ToolOutput` stays what it is.

    Raises:
        ToolError: It can't be written as JSON.
    """
    output = result if isinstance(result, ToolOutput) else ToolOutput(content=cast("Any", result))
    try:
        # Through JSON and back, so that nothing reaches the log that JSON can't hold.
        content = from_json(to_json(output.content, inf_nan_mode="null"))
    except Exception as error:
        kind = type(output.content).__name__
        raise ToolError(f"{tool} returned a {kind}, which can't be written as JSON.") from error
    return ToolOutput(content=content, is_error=output.is_error, attachments=output.attachments)


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    retries: int = 2,
    parallel: bool = True,
    needs_approval: NeedsApproval = False,
    isolated: bool = False,
    permissions: Permissions | None = None,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...
def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    retries: int = 2,
    parallel: bool = True,
    needs_approval: NeedsApproval = False,
    isolated: bool = False,
    permissions: Permissions | None = None,
) -> FunctionTool[P, R] | Callable[[Callable[P, R]], FunctionTool[P, R]]:
    """Make a tool of a typed function with a docstring.

    Args:
        function: The function, when used as a bare `@tool`.
        name: What the model calls it; by default the function's name.
        description: What it does; by default the docstring up to its first section.
        timeout: Seconds after which a call is given up and the model told so. An async function is
            cancelled; a sync one can't be, and goes on by itself.
        retries: How often in a turn the function may have a call made again, by raising
            `ToolRetry`.
        parallel: Whether a call may run beside the others of its message.
        needs_approval: Whether a person is asked before a call runs: `True`, or a function of the
            call's arguments that gives `True` or a text that says why.
        isolated: Whether the function runs in the sandbox, with `permissions` and nothing else. It
            must be a plain function that needs nothing but its arguments: see
            `corral.tools.isolated`.
        permissions: What an isolated function may do; by default nothing but compute.

    Raises:
        ConfigError: See `FunctionTool`; and what can't be isolated.
    """
    options = ToolOptions(
        timeout=timeout, retries=retries, parallel=parallel, needs_approval=needs_approval
    )
    if permissions is not None and not isolated:
        raise ConfigError(
            "permissions= bind only what runs in the sandbox, and this function would not. Add "
            "isolated=True, or leave them out."
        )

    def make(given: Callable[P, R]) -> FunctionTool[P, R]:
        if isolated:
            from corral.tools.isolated import IsolatedTool

            return IsolatedTool(
                given, name=name, description=description, options=options, permissions=permissions
            )
        return FunctionTool(given, name=name, description=description, options=options)

    return make(function) if function is not None else make
