"""Mends values whose type is wrong but whose meaning is plain, as the tool's schema directs.

Small models write `"5"` for 5 and `"[1, 2]"` for a list. Only what loses nothing is mended: `"5"`
and `5.0` for an integer, 5 for a string, `"true"` for a boolean, JSON in a string for a list or an
object, and null (also as `""` or `"None"`) for a parameter that could have been left out.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic import JsonValue

from corral.model_runtime.parser.literals import Fault, Scanner, decode_json
from corral.model_runtime.parser.quick_checks import Schema, has_type, types_of
from corral.model_runtime.parser.schemas import Prepared

__all__ = ["coerce_arguments"]

_TRUTHS = {"true": True, "True": True, "false": False, "False": False}
_NOTHING = ("", "null", "None")


def coerce_arguments(
    prepared: Prepared, arguments: dict[str, JsonValue]
) -> tuple[dict[str, JsonValue], tuple[str, ...]]:
    """Mend a call's arguments: the mended ones, and the warning codes of what was done."""
    coercion = _Coercion(prepared)
    return coercion.fields(arguments, prepared.schema), tuple(coercion.notes)


class _Coercion:
    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.notes: dict[str, None] = {}

    def fields(self, value: dict[str, JsonValue], schema: Schema) -> dict[str, JsonValue]:
        """Mend an object's members."""
        properties: Any = schema.get("properties")
        if not isinstance(properties, dict):
            return value
        required: Any = schema.get("required") or ()
        found: dict[str, JsonValue] = {}
        for name, item in value.items():
            inner = cast("dict[str, Any]", properties).get(name)
            if not isinstance(inner, dict):
                found[name] = item
                continue
            inner = self.prepared.resolve(cast("Schema", inner))
            if name not in required and self._could_be_left_out(item, inner):
                self.notes["dropped_null_optional"] = None
            else:
                found[name] = self.value(item, inner)
        return found

    def _could_be_left_out(self, item: JsonValue, schema: Schema) -> bool:
        """Whether an optional parameter was given a value that only says there is none."""
        types = types_of(schema)
        if not types or "null" in types:
            return False
        return item is None or (
            isinstance(item, str) and item in _NOTHING and "string" not in types
        )

    def value(self, value: JsonValue, schema: Schema) -> JsonValue:
        """Mend one value."""
        schema = self.prepared.resolve(schema)
        branches: Any = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(branches, list):
            return self._branch(value, cast("list[object]", branches))
        types = types_of(schema)
        if types and not any(has_type(value, name) for name in types):
            mended = _convert(value, types)
            if mended is not None or (value in _NOTHING and "null" in types):
                self.notes["coerced_type"] = None
                value = mended
        if isinstance(value, dict):
            return self.fields(value, schema)
        items: Any = schema.get("items")
        if isinstance(value, list) and isinstance(items, dict):
            return [self.value(item, cast("Schema", items)) for item in value]
        return value

    def _branch(self, value: JsonValue, branches: list[object]) -> JsonValue:
        """Mend a value for the first branch that has its type, or else that it can be mended to."""
        schemas = [
            self.prepared.resolve(cast("Schema", branch))
            for branch in branches
            if isinstance(branch, dict)
        ]
        for schema in schemas:
            types = types_of(schema)
            if not types or any(has_type(value, name) for name in types):
                return self.value(value, schema)
        for schema in schemas:
            types = types_of(schema)
            mended = self.value(value, schema)
            if any(has_type(mended, name) for name in types):
                return mended
        return value


def _convert(value: JsonValue, types: tuple[str, ...]) -> JsonValue:
    """The value as one of `types`, None if it is not plainly one."""
    if isinstance(value, str):
        for name in types:
            mended = _from_text(value, name)
            if mended is not None:
                return mended
    elif isinstance(value, float):
        if "integer" in types and value.is_integer():
            return int(value)
    elif isinstance(value, int) and not isinstance(value, bool) and "string" in types:
        return str(value)
    return None


def _from_text(text: str, name: str) -> JsonValue:
    """The value of type `name` that a string spells, None if it spells none."""
    if name == "boolean":
        return _TRUTHS.get(text)
    if name in ("integer", "number"):
        read = decode_json(text, 0)
        value = read[0] if read is not None and read[1] == len(text) else None
        if name == "integer" and isinstance(value, float) and value.is_integer():
            value = int(value)
        return value if has_type(value, name) else None
    if name in ("array", "object"):
        value = _literal(text.strip())
        return value if has_type(value, name) else None
    return None


def _literal(text: str) -> JsonValue:
    """The list or object that a string holds, as JSON or in Python's words."""
    if text[:1] not in ("[", "{"):
        return None
    read = decode_json(text, 0)
    if read is not None:
        return read[0] if read[1] == len(text) else None
    scanner = Scanner(text, python=True)
    try:
        value = scanner.value()
    except Fault:
        return None
    return value if scanner.at_end and scanner.fault is None else None
