"""Checks for the schemas that most tools have, at a hundredth of the general validator's cost.

A quick check passes only what the schema admits beyond doubt. What it does not pass goes to the
general validator, which has the last word and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import ge, gt, le, lt
from typing import Any, TypeAlias, cast

__all__ = ["Schema", "has_type", "quick_check", "types_of"]

Schema: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[object], bool]

_CHECKS: dict[str, Check] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
_REMARKS = {"title", "description", "default", "examples", "example", "$comment", "optional"}
_SIZES: dict[str, type | tuple[type, ...]] = {
    "minimum": (int, float),
    "maximum": (int, float),
    "exclusiveMinimum": (int, float),
    "exclusiveMaximum": (int, float),
    "minLength": str,
    "maxLength": str,
    "minItems": list,
    "maxItems": list,
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "minimum": ge,
    "maximum": le,
    "exclusiveMinimum": gt,
    "exclusiveMaximum": lt,
    "minLength": ge,
    "maxLength": le,
    "minItems": ge,
    "maxItems": le,
}
_KNOWN = {
    "type",
    "enum",
    "anyOf",
    "properties",
    "required",
    "items",
    "additionalProperties",
    *_SIZES,
    *_REMARKS,
}


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


def quick_check(schema: Schema) -> Check | None:
    """A check that passes only what fits; None if the schema says more than is understood here."""
    if not schema.keys() <= _KNOWN:
        return None
    names = types_of(schema) if "type" in schema else ()
    if not all(name in _CHECKS for name in names):
        return None
    checks: list[Check] = []
    if "enum" in schema:
        checks.append(_enum_check(schema))
    if names and not (names == ("string",) and _lists_strings(schema)):
        checks.append(_type_check(names))
    parts = (("anyOf", _any_check), ("items", _items_check), ("properties", _properties_check))
    for key, make in parts:
        if key in schema:
            check = make(schema)
            if check is None:
                return None
            checks.append(check)
    for key in _SIZES.keys() & schema.keys():
        if not has_type(schema[key], "number"):
            return None
        checks.append(_size_check(key, schema[key]))
    if "properties" not in schema and ("required" in schema or "additionalProperties" in schema):
        return None
    return checks[0] if len(checks) == 1 else _all_of(checks)


def _lists_strings(schema: Schema) -> bool:
    """Whether an enum of strings alone spares the check of their type."""
    listed: Any = schema.get("enum")
    return isinstance(listed, list) and all(
        isinstance(item, str) for item in cast("list[object]", listed)
    )


def _all_of(checks: Sequence[Check]) -> Check:
    def check_all(value: object) -> bool:
        for check in checks:
            if not check(value):
                return False
        return True

    return check_all


def _any_of(checks: Sequence[Check]) -> Check:
    def check_any(value: object) -> bool:
        for check in checks:
            if check(value):
                return True
        return False

    return check_any


def _type_check(names: Sequence[str]) -> Check:
    checks = [_CHECKS[name] for name in names]
    return checks[0] if len(checks) == 1 else _any_of(checks)


def _enum_check(schema: Schema) -> Check:
    """Strings, null and truth values only: whether 1 is among 1.0 and true is a longer story."""
    listed: Any = schema["enum"]
    choices = cast("list[object]", listed if isinstance(listed, list) else [])
    allowed = {item for item in choices if isinstance(item, str)}
    singles = [item for item in choices if item is None or isinstance(item, bool)]

    def check_enum(value: object) -> bool:
        if isinstance(value, str):
            return value in allowed
        return any(value is item for item in singles)

    return check_enum


def _size_check(key: str, bound: float) -> Check:
    kinds, compare = _SIZES[key], _COMPARE[key]
    measured = "Length" in key or "Items" in key

    def check_size(value: object) -> bool:
        if not isinstance(value, kinds) or isinstance(value, bool):
            return True
        return compare(len(cast("str", value)) if measured else value, bound)

    return check_size


def _any_check(schema: Schema) -> Check | None:
    branches: Any = schema["anyOf"]
    if not isinstance(branches, list):
        return None
    checks = [
        quick_check(cast("Schema", branch)) if isinstance(branch, dict) else None
        for branch in cast("list[object]", branches)
    ]
    known = [check for check in checks if check is not None]
    return _any_of(known) if len(known) == len(checks) else None


def _items_check(schema: Schema) -> Check | None:
    items: Any = schema["items"]
    item = quick_check(cast("Schema", items)) if isinstance(items, dict) else None
    if item is None:
        return None

    def check_items(value: object) -> bool:
        if isinstance(value, list):
            for each in cast("list[object]", value):
                if not item(each):
                    return False
        return True

    return check_items


def _properties_check(schema: Schema) -> Check | None:
    checks: dict[str, Check] = {}
    for name, inner in cast("dict[str, object]", schema["properties"]).items():
        check = quick_check(cast("Schema", inner)) if isinstance(inner, dict) else None
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
