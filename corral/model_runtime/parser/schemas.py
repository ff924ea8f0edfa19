"""JSON Schemas of tools, made ready for checking arguments.

Tools come from many hands. Besides JSON Schema (draft 2020-12) the type names of the Berkeley
function-calling benchmark are taken: `dict`, `float`, `tuple`, `any`. Nothing is ever fetched for a
`$ref`: what a schema refers to must be inside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, cast
from weakref import ref

from corral.model_runtime.parser.quick_checks import Schema, quick_check
from corral.model_runtime.parser.value_formats import format_checker

__all__ = ["Prepared", "prepare", "prepare_for"]

_TYPE_NAMES = {
    "dict": "object",
    "float": "number",
    "double": "number",
    "tuple": "array",
    "list": "array",
    "int": "integer",
    "long": "integer",
    "bool": "boolean",
    "str": "string",
    "String": "string",
    "Boolean": "boolean",
    "char": "string",
}
_UNTYPED = ("any", "Any", "", "Array", "ArrayList", "HashMap")
_OPENING = (
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
)


class Prepared:
    """A tool's schema, ready for use. Made by `prepare`.

    Attributes:
        schema: The schema in JSON Schema's own words.
        parameters: What the tool's parameters must be, by name.
        required: The names that must be given.
        closed: Whether a parameter of another name is an error. JSON Schema would let it pass
            unless told otherwise; for a tool whose parameters are listed it is a slip.
    """

    def __init__(self, schema: Schema) -> None:
        """See the class."""
        self.schema: Schema = _normal(schema)
        properties = self.schema.get("properties")
        self.parameters: dict[str, Schema] = {}
        if isinstance(properties, dict):
            self.parameters = cast("dict[str, Schema]", properties)
        required = self.schema.get("required")
        names = cast("list[object]", required) if isinstance(required, list) else []
        self.required = [name for name in names if isinstance(name, str)]
        self.closed = isinstance(properties, dict) and (
            not any(key in self.schema for key in _OPENING)
            or (
                self.schema.get("additionalProperties") is False
                and not any(key in self.schema for key in _OPENING[1:])
            )
        )
        self._check = quick_check(self.schema)

    def plainly_fits(self, arguments: Mapping[str, object]) -> bool:
        """Whether arguments are right beyond doubt. False means that a closer look is due."""
        if self._check is None or (self.closed and not arguments.keys() <= self.parameters.keys()):
            return False
        return self._check(arguments)

    @cached_property
    def validator(self) -> Any:
        """The schema's validator, from the `jsonschema` package."""
        # Imported here because it is slow to load, and most messages never need it.
        from jsonschema import Draft202012Validator
        from referencing import Registry

        registry = cast("Any", Registry)()
        return Draft202012Validator(
            dict(self.schema),
            registry=registry,  # An empty one fetches nothing.
            format_checker=format_checker(),
        )

    def resolve(self, schema: Schema) -> Schema:
        """Follow a schema's `$ref` as far as it leads within this one."""
        for _ in range(16):
            ref = schema.get("$ref")
            if not isinstance(ref, str) or not ref.startswith("#"):
                break
            target: Any = self.schema
            for step in ref[1:].split("/")[1:]:
                inside: Schema = cast("Schema", target if isinstance(target, dict) else {})
                target = inside.get(step.replace("~1", "/").replace("~0", "~"))
            if not isinstance(target, dict):
                break
            schema = cast("Schema", target)
        return schema


_OF_OWNERS: dict[int, tuple[ref[object], Schema, Prepared]] = {}
"""The schemas of objects that are still alive, by the objects' ids."""


def prepare_for(owner: object, schema: Schema) -> Prepared:
    """Make the schema of `owner` ready, once for as long as the owner lives.

    Unlike `prepare` it needs no look at the schema when it is asked again, so that the owner's must
    not be changed.

    Raises:
        ValueError, TypeError, RecursionError: It is no JSON.
    """
    known = _OF_OWNERS.get(id(owner))
    if known is not None and known[0]() is owner and known[1] is schema:
        return known[2]
    number = id(owner)
    prepared = prepare(schema)
    _OF_OWNERS[number] = (ref(owner, lambda _: _OF_OWNERS.pop(number, None)), schema, prepared)
    return prepared


def prepare(schema: Schema) -> Prepared:
    """Make a schema ready; the same one is made ready only once.

    Raises:
        ValueError, TypeError, RecursionError: It is no JSON.
    """
    return _prepare(json.dumps(schema))


@lru_cache(maxsize=256)
def _prepare(source: str) -> Prepared:
    return Prepared(json.loads(source))


def _normal(schema: Schema) -> dict[str, Any]:
    """A schema with its type names in JSON Schema's words, and null where it is the default."""
    found: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "type":
            value = _normal_type(value)
            if value is None:
                continue
        elif key in ("properties", "$defs", "definitions", "patternProperties"):
            value = _normal_each(value)
        elif key in ("items", "additionalProperties", "not", "contains") and isinstance(
            value, dict
        ):
            value = _normal(cast("Schema", value))
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            value = [_normal_any(item) for item in cast("list[object]", value)]
        found[key] = value
    if "default" in found and found["default"] is None:
        _allow_null(found)
    return found


def _normal_any(schema: object) -> object:
    return _normal(cast("Schema", schema)) if isinstance(schema, dict) else schema


def _normal_each(schemas: object) -> object:
    if not isinstance(schemas, dict):
        return schemas
    return {name: _normal_any(item) for name, item in cast("dict[str, object]", schemas).items()}


def _normal_type(named: object) -> object:
    """A type's name, or names; None if any type will do."""
    if isinstance(named, str):
        return None if named in _UNTYPED else _TYPE_NAMES.get(named, named)
    if not isinstance(named, list):
        return named
    names = [_TYPE_NAMES.get(name, name) for name in cast("list[str]", named)]
    return None if any(name in _UNTYPED for name in names) else names


def _allow_null(schema: dict[str, Any]) -> None:
    named: Any = schema.get("type")
    if named is not None:
        schema["type"] = [*([named] if isinstance(named, str) else named), "null"]
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [*schema["enum"], None]
