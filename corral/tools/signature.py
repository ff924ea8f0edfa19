"""What a function asks for, read from its signature: as a schema for the model, and as a checker.

The checker is a pydantic model with a field for each parameter, made with public APIs. Its fields
have names of their own and the parameters' names as aliases, so that a parameter may be called
whatever Python lets it be called, `json` and `model_config` included.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from corral.errors import ConfigError, ToolError
from corral.messages import ToolSpec
from corral.tools.context import RunContext
from corral.tools.docstring import describe

__all__ = ["Signature", "read_signature"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A function as a tool sees it.

    Attributes:
        spec: How a model is shown it.
        takes_context: Whether its first parameter is a `RunContext`.
        deps: What it wants in that context, by the name of the type; None if nothing.
        is_method: Whether it still lacks its `self`, and so can't be called yet.
    """

    spec: ToolSpec
    takes_context: bool
    deps: str | None
    is_method: bool
    _checker: type[BaseModel]
    _parameters: tuple[inspect.Parameter, ...]

    def bind(self, arguments: dict[str, JsonValue]) -> tuple[list[Any], dict[str, Any]]:
        """A call's arguments as the function takes them, in its own types, defaults filled in.

        Raises:
            ToolError: They aren't what its types ask for; the message names the first that is not.
        """
        try:
            # As JSON, which is what a model writes: a date is a string even where types are strict.
            checked = self._checker.model_validate_json(to_json(arguments))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ToolError(f"{self.spec.name}: {where}: {first['msg']}") from error
        except ValueError as error:
            raise ToolError(f"{self.spec.name}: the arguments are no JSON: {error}") from error
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for field, parameter in zip(self._checker.model_fields, self._parameters, strict=True):
            value = getattr(checked, field)
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                positional.append(value)
            else:
                named[parameter.name] = value
        return positional, named


def read_signature(
    function: Callable[..., Any], *, name: str | None = None, description: str | None = None
) -> Signature:
    """Read a function, a method, a `functools.partial` or an object that can be called.

    Raises:
        ConfigError: A model could not call it: it has a parameter without a type or a name, no JSON
            Schema can be made of it, or it says nothing of what it does.
    """
    target, given = _target(function)
    name = name or str(getattr(target, "__name__", "") or "tool")
    summary, documented = describe(_docstring(function, target))
    summary = description or summary
    if not summary:
        raise ConfigError(
            f"The tool {name!r} has no docstring, so a model can't know what it does. Write one."
        )
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        raise ConfigError(f"The tool {name!r} yields its result. Return it, as a list if need be.")
    hints = _hints(name, target)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in given]
    is_method = bool(parameters) and parameters[0].name == "self" and "self" not in hints
    if is_method:
        parameters.pop(0)
    takes_context, deps = _context(name, parameters, hints)
    if takes_context:
        parameters.pop(0)
    fields = {
        f"p{i}": _field(name, parameter, hints, documented)
        for i, parameter in enumerate(parameters)
    }
    checker, schema = _checker(name, fields)
    return Signature(
        spec=ToolSpec(name=name, description=summary, parameters=schema),
        takes_context=takes_context,
        deps=deps,
        is_method=is_method,
        _checker=checker,
        _parameters=tuple(parameters),
    )


def _target(function: Callable[..., Any]) -> tuple[Callable[..., Any], frozenset[str]]:
    """The function behind partials and callable objects, and the parameters given by name."""
    given: set[str] = set()
    while isinstance(function, functools.partial):
        part = cast("functools.partial[Any]", function)
        given |= part.keywords.keys()
        function = part.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function, frozenset(given)
    return type(function).__call__, frozenset(given)


def _docstring(function: Callable[..., Any], target: Callable[..., Any]) -> str | None:
    """The function's own docstring; that of an object's `__call__`, or else of its class."""
    if target.__name__ == "__call__" and not inspect.isroutine(function):
        return target.__doc__ or type(function).__doc__
    return target.__doc__


def _hints(name: str, target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(target, include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"The tool {name!r} has a type that can't be found: {error}. Import it where the "
            "function is defined."
        ) from error
    except TypeError as error:
        raise ConfigError(
            f"The tool {name!r} has no types that can be read: {error}. Write a function around it."
        ) from error


def _context(
    name: str, parameters: list[inspect.Parameter], hints: dict[str, Any]
) -> tuple[bool, str | None]:
    """Whether the first parameter is the run's context, and what it should carry."""
    for i, parameter in enumerate(parameters):
        hint = hints.get(parameter.name)
        if hint is not RunContext and get_origin(hint) is not RunContext:
            continue
        if i:
            raise ConfigError(
                f"The tool {name!r} takes its RunContext as {parameter.name!r}. Make that its "
                "first parameter."
            )
        wanted = get_args(hint)[0] if get_args(hint) else None
        optional = get_origin(wanted) in (Union, UnionType) and NoneType in get_args(wanted)
        if wanted in (None, NoneType, object, Any) or optional:
            return True, None
        return True, str(getattr(wanted, "__name__", wanted))
    return False, None


def _field(
    name: str, parameter: inspect.Parameter, hints: dict[str, Any], documented: dict[str, str]
) -> tuple[Any, Any]:
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        raise ConfigError(
            f"The tool {name!r} takes {parameter!s}, which has no name of its own that a model "
            "could use. Give each parameter a name."
        )
    if parameter.name not in hints:
        raise ConfigError(
            f"The parameter {parameter.name!r} of the tool {name!r} has no type. Annotate it."
        )
    if isinstance(parameter.default, FieldInfo):
        raise ConfigError(
            f"The parameter {parameter.name!r} of the tool {name!r} has a Field as its default. "
            "Write Annotated[TYPE, Field(...)], and the default behind it."
        )
    hint = hints[parameter.name]
    default = ... if parameter.default is inspect.Parameter.empty else parameter.default
    said = _annotated(hint) or documented.get(parameter.name)
    field = (
        Field(default, alias=parameter.name, description=said)
        if said
        else Field(default, alias=parameter.name)
    )
    return hint, field


def _annotated(hint: Any) -> str | None:
    """The description in `Annotated[T, "..."]` or `Annotated[T, Field(description="...")]`."""
    if get_origin(hint) is not Annotated:
        return None
    described = [m.description for m in hint.__metadata__ if isinstance(m, FieldInfo)]
    texts = [m for m in hint.__metadata__ if isinstance(m, str)]
    return next(filter(None, [*described, *texts]), None)


def _checker(
    name: str, fields: dict[str, tuple[Any, Any]]
) -> tuple[type[BaseModel], dict[str, JsonValue]]:
    try:
        model: type[BaseModel] = create_model(
            name, __config__=ConfigDict(extra="forbid"), **cast("dict[str, Any]", fields)
        )
        schema = model.model_json_schema()
        Draft202012Validator.check_schema(schema)
    except Exception as error:  # pydantic has a kind of its own for each way to be no schema
        raise ConfigError(
            f"The tool {name!r} has a parameter that JSON Schema can't describe: {error}. "
            "Use JSON's types, enums, dates, dataclasses or pydantic models."
        ) from error
    schema = _without_titles(schema)
    schema.pop("description", None)
    return model, schema


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
