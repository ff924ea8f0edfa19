"""JSON Schemas made fit for a grammar: tightened where silent, loosened where they have to be.

A schema that doesn't forbid other properties allows a model to invent arguments, and one that sets
no bounds lets it go on for ever; both are set here. What a grammar can't express (`not`,
`uniqueItems`, `if`, ...) is left out, so that there the grammar is wider than the schema; the
parser's validation still refuses what slips through.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TypeGuard

from pydantic import JsonValue

__all__ = ["JsonObject", "SchemaBounds", "as_object", "fit", "kind_of", "unique_choices"]

JsonObject = dict[str, JsonValue]

_KEPT = frozenset(
    "type enum const properties required additionalProperties items prefixItems minItems maxItems "
    "minLength maxLength pattern format minimum maximum exclusiveMinimum exclusiveMaximum "
    "multipleOf anyOf oneOf allOf $ref patternProperties".split()
)
_FORMATS = frozenset("date date-time time duration email uuid ipv4 ipv6 hostname uri".split())
_COMBINED = ("anyOf", "oneOf", "allOf")
_KEY = "^[^\\x00-\\x1f\\x7f]{1,60}$"
_MOST_UNIQUE = 6
_TYPED = frozenset(("type", "enum", "const", "$ref", *_COMBINED))


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaBounds:
    """How much a model may write where its schema sets no bound."""

    string: int = 4000
    """Characters of a string."""
    items: int = 64
    """Items of an array, and keys of an object whose keys are free."""
    digits: int = 15
    """Digits of a number before the point."""
    step: float = 1e-6
    """The finest step of a number: behind the point it could go on for ever."""
    loose: bool = False
    """Whether patterns and formats are left out: for those that no grammar can be made of."""


def as_object(value: JsonValue | None) -> JsonObject:
    """The value if it is an object; else an empty one, which as a schema admits anything."""
    return value if isinstance(value, dict) else {}


def fit(schema: JsonValue, bounds: SchemaBounds, *, depth: int = 2) -> JsonObject:
    """A schema that llguidance compiles; its `$defs` are left for the caller to add.

    Where anything may stand, values nest at most `depth` deep.
    """
    kept = _known(as_object(schema), bounds)
    if not kept:
        return _anything(bounds, depth)
    if choices := unique_choices(kept | as_object(schema)):
        return {"enum": choices}
    kinds = kept.get("type")
    if _is_list(kinds):
        return {"anyOf": [fit({**kept, "type": kind}, bounds, depth=depth) for kind in kinds]}
    for key in _COMBINED:
        if _is_list(inner := kept.get(key)):
            kept[key] = [fit(each, bounds) for each in inner]
    _fit_object(kept, bounds)
    _fit_array(kept, bounds)
    if kinds == "string":
        _fit_string(kept, bounds)
    if kinds in ("integer", "number"):
        _fit_number(kept, bounds)
    return kept


def _known(schema: JsonObject, bounds: SchemaBounds) -> JsonObject:
    """What a grammar can tell of a schema."""
    left_out = ("pattern", "format") if bounds.loose else ()
    kept = {key: value for key, value in schema.items() if key in _KEPT and key not in left_out}
    if kept.get("format") not in _FORMATS:
        kept.pop("format", None)
    if kept and not kept.keys() & _TYPED and (kind := kind_of(kept)):
        kept["type"] = kind
    return kept


def _fit_string(kept: JsonObject, bounds: SchemaBounds) -> None:
    if kept.keys() & {"maxLength", "pattern", "enum", "const"}:
        return
    if "format" not in kept:
        kept["maxLength"] = max(bounds.string, _whole(kept.get("minLength")))
    elif kept["format"] in ("email", "hostname", "uri"):
        kept["maxLength"] = 100


def kind_of(schema: JsonObject) -> str:
    """The type that a schema without one means by what it says; nothing where it says nothing."""
    if schema.keys() & {"properties", "required", "additionalProperties", "patternProperties"}:
        return "object"
    if schema.keys() & {"items", "prefixItems", "minItems", "maxItems"}:
        return "array"
    if schema.keys() & {"pattern", "minLength", "maxLength", "format"}:
        return "string"
    return "number" if schema.keys() & {"minimum", "maximum", "multipleOf"} else ""


def _fit_object(kept: JsonObject, bounds: SchemaBounds) -> None:
    for key in ("properties", "patternProperties"):
        if isinstance(inner := kept.get(key), dict):
            kept[key] = {name: fit(each, bounds) for name, each in inner.items()}
    if isinstance(more := kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = fit(more, bounds)
    elif more is None and kept.keys() & {"properties", "patternProperties", "required"}:
        kept["additionalProperties"] = False
    if kept.get("type") == "object" and not kept.keys() & {"properties", "patternProperties"}:
        inner = kept.pop("additionalProperties", True)
        if inner is not False:
            # Free keys, of a length that ends.
            value = inner if isinstance(inner, dict) else fit({}, bounds, depth=1)
            kept["patternProperties"] = {_KEY: value}
        kept["additionalProperties"] = False


def _anything(bounds: SchemaBounds, depth: int) -> JsonObject:
    kinds: list[JsonValue] = [
        fit({"type": kind}, bounds) for kind in ("string", "number", "boolean", "null")
    ]
    if depth > 0:
        inner: JsonValue = _anything(bounds, depth - 1)
        kinds.append({"type": "array", "items": inner, "maxItems": bounds.items})
        properties: JsonValue = {_KEY: inner}
        kinds.append(
            {"type": "object", "patternProperties": properties, "additionalProperties": False}
        )
    return {"anyOf": kinds}


def _fit_array(kept: JsonObject, bounds: SchemaBounds) -> None:
    if isinstance(items := kept.get("items"), dict):
        kept["items"] = fit(items, bounds)
    if _is_list(first := kept.get("prefixItems")):
        kept["prefixItems"] = [fit(each, bounds) for each in first]
    if kept.get("type") == "array" and "maxItems" not in kept:
        kept["maxItems"] = max(bounds.items, _whole(kept.get("minItems")))


def unique_choices(schema: JsonObject) -> list[JsonValue] | None:
    """The arrays that a schema of few unique options admits, in the options' order.

    None where it is no such schema. A grammar can't forbid a repetition, but it can list these.
    """
    options = as_object(schema.get("items")).get("enum")
    if schema.get("uniqueItems") is not True or not _is_list(options):
        return None
    if len(options) > _MOST_UNIQUE:
        return None
    least = _whole(schema.get("minItems"))
    most = min(len(options), _whole(schema.get("maxItems")) or len(options))
    return [
        list(chosen) for size in range(least, most + 1) for chosen in combinations(options, size)
    ]


def _fit_number(kept: JsonObject, bounds: SchemaBounds) -> None:
    if kept.keys() & {"enum", "const"}:
        return
    most = 10**bounds.digits
    if not kept.keys() & {"minimum", "exclusiveMinimum"}:
        kept["minimum"] = -most
    if not kept.keys() & {"maximum", "exclusiveMaximum"}:
        kept["maximum"] = most
    if kept.get("type") == "number" and not bounds.loose:
        kept.setdefault("multipleOf", bounds.step)


def _whole(value: JsonValue | None) -> int:
    return value if isinstance(value, int) else 0


def _is_list(value: JsonValue | None) -> TypeGuard[list[JsonValue]]:
    return isinstance(value, list)
