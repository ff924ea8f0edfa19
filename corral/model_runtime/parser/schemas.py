"""JSON Schemas of tools, made ready for checking arguments.

Tools come from many hands. Besides JSON Schema (draft 2020-12) the type names of the Berkeley
function-calling benchmark are taken: `dict`, `float`, `tuple`, `any`. Nothing is ever fetched for a
`$ref`: what a schema refers to must be inside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, TypeAlias, cast

__all__ = ["Prepared", "Schema", "has_type", "prepare", "types_of"]

Schema: TypeAlias = Mapping[str, Any]
_Check: TypeAlias = Callable[[object], bool]

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
    "char": "string",
}
_UNTYPED = ("any", "Any")
_CHECKS: dict[str, _Check] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
_REMARKS = {"title", "description", "default", "examples", "example", "$comment", "optional"}
_PLAIN = {"type", "enum", "properties", "required", "items", "additionalProperties", *_REMARKS}
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


def has_type(value: object, name: str) -> bool:
    """Whether a value is of the JSON Schema type `name`; `3.0` is no integer here."""
    check = _CHECKS.get(name)
    return check is not None and check(value)


def types_of(schema: Schema) -> tuple[str, ...]:
    """The types that a schema allows, `()` if it names none; those of its branches together."""
    named = schema.get("type")
    if isinstance(named, str):
        return (named,)
    if isinstance(named, list):
        return tuple(cast("list[str]", named))
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            branches = cast("list[Schema]", schema[key])
            found = [types_of(branch) for branch in branches]
            return tuple(name for names in found for name in names) if all(found) else ()
    if isinstance(schema.get("enum"), list):
        return tuple(
            dict.fromkeys(
                name for value in schema["enum"] for name in _CHECKS if has_type(value, name)
            )
        )
    return ("object",) if "properties" in schema else ()


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
        self._check = _plain_check(self.schema)

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
            format_checker=Draft202012Validator.FORMAT_CHECKER,
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


# -- checks for the schemas that most tools have, at a hundredth of the general validator's cost


def _plain_check(schema: Schema) -> _Check | None:
    """A check that passes only what fits; None if the schema says more than it understands."""
    if not schema.keys() <= _PLAIN:
        return None
    names = types_of(schema) if "type" in schema else ()
    if not all(name in _CHECKS for name in names):
        return None
    checks: list[_Check] = []
    if "enum" in schema:
        allowed = {item for item in schema["enum"] if isinstance(item, str)}
        checks.append(lambda value: isinstance(value, str) and value in allowed)
    if names and not (checks and names == ("string",)):
        checks.append(_type_check(names))
    for key, make in (("items", _items_check), ("properties", _properties_check)):
        if key in schema:
            check = make(schema)
            if check is None:
                return None
            checks.append(check)
    if "properties" not in schema and ("required" in schema or "additionalProperties" in schema):
        return None
    return checks[0] if len(checks) == 1 else _all_of(checks)


def _all_of(checks: Sequence[_Check]) -> _Check:
    def check_all(value: object) -> bool:
        for check in checks:
            if not check(value):
                return False
        return True

    return check_all


def _type_check(names: Sequence[str]) -> _Check:
    if len(names) == 1:
        return _CHECKS[names[0]]
    checks = [_CHECKS[name] for name in names]
    return lambda value: any(check(value) for check in checks)


def _items_check(schema: Schema) -> _Check | None:
    items: Any = schema["items"]
    item = _plain_check(cast("Schema", items)) if isinstance(items, dict) else None
    if item is None:
        return None

    def check_items(value: object) -> bool:
        if isinstance(value, list):
            for each in cast("list[object]", value):
                if not item(each):
                    return False
        return True

    return check_items


def _properties_check(schema: Schema) -> _Check | None:
    checks: dict[str, _Check] = {}
    for name, inner in cast("dict[str, object]", schema["properties"]).items():
        check = _plain_check(cast("Schema", inner)) if isinstance(inner, dict) else None
        if check is None:
            return None
        checks[name] = check
    required = frozenset(cast("list[str]", schema.get("required") or []))
    extras = schema.get("additionalProperties", True)
    if not isinstance(extras, bool):
        return None

    def check_fields(value: object) -> bool:
        if not isinstance(value, dict):
            return True
        fields = cast("dict[str, object]", value)
        if not required <= fields.keys():
            return False
        for name, item in fields.items():
            check = checks.get(name)
            if not (extras if check is None else check(item)):
                return False
        return True

    return check_fields
