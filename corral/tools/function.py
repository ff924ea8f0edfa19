"""`@tool`: a typed Python function, as a tool.

The schema comes from the signature and the docstring, by way of a pydantic model made with public
APIs; that model also turns the model's JSON into the function's own types. The function runs in
this process, with all its rights: it is the user's code, not the model's. What comes from the
model is only its arguments, and those have been checked.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec, TypeVar, cast, get_type_hints, overload

import anyio.to_thread
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    create_model,
)
from pydantic_core import from_json, to_json

from corral.errors import ConfigError, ToolError
from corral.messages import ToolSpec
from corral.tools.docstring import describe
from corral.tools.tool import ToolContext, ToolOutput

__all__ = ["FunctionTool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")


class FunctionTool(Generic[P, R]):
    """A function as a tool. It can still be called like the function it was made from."""

    def __init__(
        self, function: Callable[P, R], *, name: str | None = None, description: str | None = None
    ) -> None:
        """Make a tool of `function`, sync or async; `name` and `description` override its own.

        Raises:
            ConfigError: A parameter has no type, no JSON Schema can be made of it, or the function
                says nothing of what it does.
        """
        self._function = function
        self.__name__ = name or getattr(function, "__name__", "tool")
        self.__doc__ = function.__doc__
        self._arguments, self._spec = _specify(function, self.__name__, description)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself."""
        return self._function(*args, **kwargs)

    @property
    def spec(self) -> ToolSpec:
        """How the model is shown the tool."""
        return self._spec

    async def ready(self) -> None:
        """A function of this process can always be called."""

    async def call(self, arguments: dict[str, JsonValue], context: ToolContext) -> ToolOutput:
        """Run the function once; a sync one in a worker thread."""
        try:
            checked = self._arguments.model_validate(arguments)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ToolError(f"{self.__name__}: {where}: {first['msg']}") from error
        values = {key: getattr(checked, key) for key in type(checked).model_fields}
        function = cast("Callable[..., Any]", self._function)
        if inspect.iscoroutinefunction(function):
            result = await cast("Awaitable[Any]", function(**values))
        else:
            result = await anyio.to_thread.run_sync(lambda: function(**values))
        try:
            # Through JSON and back, so that nothing reaches the log that JSON can't hold.
            return ToolOutput(content=from_json(to_json(result, inf_nan_mode="null")))
        except Exception as error:
            raise ToolError(
                f"{self.__name__} returned a {type(result).__name__}, which can't be written as "
                "JSON."
            ) from error


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...
def tool(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
) -> FunctionTool[P, R] | Callable[[Callable[P, R]], FunctionTool[P, R]]:
    """Make a tool of a typed function with a docstring.

    Args:
        function: The function, when used as a bare `@tool`.
        name: What the model calls it; by default the function's name.
        description: What it does; by default the docstring up to its first section.

    Raises:
        ConfigError: See `FunctionTool`.
    """
    if function is not None:
        return FunctionTool(function, name=name, description=description)
    return lambda given: FunctionTool(given, name=name, description=description)


def _specify(
    function: Callable[..., Any], name: str, description: str | None
) -> tuple[type[BaseModel], ToolSpec]:
    summary, documented = describe(function.__doc__)
    summary = description or summary
    if not summary:
        raise ConfigError(
            f"The tool {name!r} has no docstring, so a model can't know what it does. Write one."
        )
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"The tool {name!r} has a type that can't be found: {error}. Import it where the "
            "function is defined."
        ) from error
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        fields[parameter.name] = _field(name, parameter, hints, documented)
    try:
        model: type[BaseModel] = create_model(
            name, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields
        )
        schema = model.model_json_schema()
        Draft202012Validator.check_schema(schema)
    except (SchemaError, Exception) as error:
        raise ConfigError(
            f"The tool {name!r} has a parameter that JSON Schema can't describe: {error}. "
            "Use JSON's types, enums, dataclasses or pydantic models."
        ) from error
    schema = _without_titles(schema)
    schema.pop("description", None)
    return model, ToolSpec(name=name, description=summary, parameters=schema)


def _field(
    name: str, parameter: inspect.Parameter, hints: dict[str, Any], documented: dict[str, str]
) -> tuple[Any, Any]:
    if parameter.kind not in (
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    ):
        raise ConfigError(
            f"The tool {name!r} takes {parameter!s}, which has no name of its own that a model "
            "could use. "
            "Give each parameter a name."
        )
    if parameter.name not in hints:
        raise ConfigError(
            f"The parameter {parameter.name!r} of the tool {name!r} has no type. Annotate it."
        )
    default = ... if parameter.default is inspect.Parameter.empty else parameter.default
    said = documented.get(parameter.name)
    field = Field(default, description=said) if said else Field(default)
    return hints[parameter.name], field


def _without_titles(schema: Any) -> Any:
    """The schema without the titles that pydantic adds, which only cost tokens.

    A property called `title` stays.
    """
    if isinstance(schema, list):
        return [_without_titles(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    plain: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", schema).items():
        if key == "title" and isinstance(value, str):
            continue
        if key in ("properties", "$defs"):
            plain[key] = {name: _without_titles(inner) for name, inner in value.items()}
        elif key in ("default", "enum", "const", "examples"):
            plain[key] = value
        else:
            plain[key] = _without_titles(value)
    return plain
