"""JSON Schemas of tools that are written as data: checked before a model is shown them.

Nothing is ever fetched for a `$ref`: what a schema refers to must be inside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from pydantic import JsonValue

from corral.errors import ConfigError, ToolError

__all__ = ["argument_names", "check_arguments", "check_name", "check_parameters", "with_defaults"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_LONGEST_SCHEMA = 32 << 10
_DEEPEST_SCHEMA = 24
# Where the keys are names that the author chose, and not words of JSON Schema.
_NAMED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_VALUES = ("default", "enum", "const", "examples")


def check_name(name: str) -> str:
    """A tool's name, as it was given.

    Raises:
        ConfigError: A model couldn't call it so.
    """
    if not _NAME.match(name):
        raise ConfigError(
            f"{name!r} can't be a tool's name. Use up to 64 letters, digits and underscores, a "
            "letter first."
        )
    return name


def check_parameters(schema: Mapping[str, Any] | None, *, tool: str) -> dict[str, JsonValue]:
    """A tool's parameters as they may be offered.

    Args:
        schema: The JSON Schema (draft 2020-12) of an object; None where there are no parameters.
        tool: The tool's name, for messages.

    Raises:
        ConfigError: It is no such schema, is too large or too deep, or refers to something outside
            itself.
    """
    if schema is None:
        return {"type": "object", "properties": {}}
    checked: dict[str, Any] = {"type": "object", "properties": {}, **schema}
    if checked["type"] != "object" or not isinstance(checked["properties"], dict):
        raise ConfigError(
            f"The parameters of the tool {tool!r} must be an object. Write type: object, and "
            "properties: with one key for each parameter."
        )
    try:
        size = len(json.dumps(checked, allow_nan=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"The parameters of the tool {tool!r} can't be written as JSON: {error}. Mend them."
        ) from error
    if size > _LONGEST_SCHEMA:
        raise ConfigError(
            f"The parameters of the tool {tool!r} take {size} bytes, and {_LONGEST_SCHEMA} are the "
            "most. Make them shorter."
        )
    for place, key, value in _walk(checked, ()):
        if len(place) > _DEEPEST_SCHEMA:
            raise ConfigError(
                f"The parameters of the tool {tool!r} are nested too deeply. Make them flatter."
            )
        if key in ("$ref", "$dynamicRef") and not str(value).startswith("#"):
            raise ConfigError(
                f"The parameters of the tool {tool!r} refer to {value!r}, which is not inside "
                "them. Write it out."
            )
    try:
        Draft202012Validator.check_schema(checked)
    except SchemaError as error:
        place = ".".join(str(part) for part in error.absolute_path) or "the schema"
        raise ConfigError(
            f"The parameters of the tool {tool!r} are no JSON Schema: {place}: {error.message}. "
            "Mend it."
        ) from error
    return checked


def argument_names(schema: Mapping[str, JsonValue]) -> frozenset[str]:
    """The names of the parameters that a checked schema lists."""
    return frozenset(cast("dict[str, JsonValue]", schema["properties"]))


def with_defaults(
    arguments: Mapping[str, JsonValue], schema: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """`arguments`, with the schema's default for each that was left out or is null.

    What has neither a value nor a default is not in the result.
    """
    properties = cast("dict[str, JsonValue]", schema["properties"])
    full: dict[str, JsonValue] = {}
    for name, parameter in properties.items():
        value = arguments.get(name)
        if value is None and isinstance(parameter, dict):
            value = parameter.get("default")
        if value is not None:
            full[name] = value
    return full | {k: v for k, v in arguments.items() if v is not None and k not in full}


def check_arguments(arguments: Mapping[str, Any], schema: Mapping[str, Any], *, tool: str) -> None:
    """See that a call's arguments are what the tool's checked schema asks for.

    Raises:
        ToolError: They aren't; the message names the first that is wrong.
    """
    validator: Any = Draft202012Validator(schema)  # its methods have no types
    for error in validator.iter_errors(arguments):
        place = ".".join(str(part) for part in error.absolute_path)
        raise ToolError(f"{tool}: {place + ': ' if place else ''}{error.message}")


def _walk(
    schema: Any, place: tuple[str, ...], *, named: bool = False
) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Every keyword in a schema with its place. Names of properties are passed over."""
    if isinstance(schema, list):
        for item in cast("list[Any]", schema):
            yield from _walk(item, (*place, "[]"))
    elif isinstance(schema, dict):
        for key, value in cast("dict[str, Any]", schema).items():
            if not named:
                yield place, key, value
            if named or key not in _VALUES:
                yield from _walk(value, (*place, key), named=key in _NAMED and not named)
