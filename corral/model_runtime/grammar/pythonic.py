"""JSON Schemas as grammars of Python literals, for calls such as `[f(city='Oslo', days=3)]`."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import JsonValue

from corral.model_runtime.formats.pythonic import encode_value
from corral.model_runtime.grammar import strings
from corral.model_runtime.grammar.lark import Rules, quoted
from corral.model_runtime.grammar.schemas import (
    JsonObject,
    SchemaBounds,
    as_object,
    fit,
    kind_of,
    unique_choices,
)

__all__ = ["PythonLiterals"]

_DEEPEST = 2
"""How deep values of no known shape may nest."""
_JSON_ONLY = ("patternProperties", "prefixItems", "allOf")


class PythonLiterals:
    """Makes rules for the values that one schema document admits."""

    def __init__(self, rules: Rules, document: JsonObject, bounds: SchemaBounds) -> None:
        """Read references in `document`, and bound what it leaves open."""
        self._rules = rules
        self._bounds = bounds
        self._document = document
        self._named: dict[str, str] = {}

    def arguments(self) -> str:
        """The keyword arguments that the document admits. Returns the name of a rule."""
        required = _names(self._document.get("required"))
        return self._rules.sequence(
            [
                (self._rules.rule(f"{quoted(name + '=')} {self.value(schema)}"), name in required)
                for name, schema in as_object(self._document.get("properties")).items()
            ]
        )

    def value(self, schema: JsonValue) -> str:
        """A literal that a schema admits. Returns the name of a rule."""
        known = as_object(schema)
        if isinstance(ref := known.get("$ref"), str):
            return self._reference(ref)
        if "const" in known:
            return self._one_of([known["const"]])
        if isinstance(options := known.get("enum"), list):
            return self._one_of(options)
        for key in ("anyOf", "oneOf"):
            if isinstance(inner := known.get(key), list):
                rest = {k: v for k, v in known.items() if k not in ("anyOf", "oneOf")}
                return self._any(self.value({**rest, **as_object(each)}) for each in inner)
        if any(key in known for key in _JSON_ONLY):
            return self._json(fit(known, self._bounds))
        kinds = known.get("type")
        if isinstance(kinds, list):
            return self._any(self._of_kind(str(kind), known) for kind in kinds)
        return self._of_kind(str(kinds) if kinds else kind_of(known), known)

    def _of_kind(self, kind: str, schema: JsonObject) -> str:
        match kind:
            case "string":
                return self._string(schema)
            case "integer" | "number":
                return self._rules.json(fit({**schema, "type": kind}, self._bounds))
            case "boolean":
                return self._rules.rule('"True" | "False"')
            case "null":
                return self._rules.rule('"None"')
            case "array":
                return self._array(schema)
            case "object":
                return self._object(schema)
            case _:
                return self._anything(_DEEPEST)

    def _string(self, schema: JsonObject) -> str:
        fitted = fit({**schema, "type": "string"}, self._bounds)
        name, pattern = fitted.get("format"), fitted.get("pattern")
        least = int(str(fitted.get("minLength", 0)))
        most = int(str(fitted.get("maxLength", max(self._bounds.string, least))))
        if isinstance(pattern, str):
            return self._rules.terminal(strings.patterned(pattern, least, most))
        if isinstance(name, str) and not schema.keys() & {"minLength", "maxLength"}:
            known = name in strings.FORMATS
            return self._rules.terminal(strings.formatted(name)) if known else self._json(fitted)
        return self._json(fitted) if name else self._rules.terminal(strings.free(least, most))

    def _json(self, schema: JsonObject) -> str:
        return self._rules.json(self._with_definitions(schema))

    def _array(self, schema: JsonObject) -> str:
        if choices := unique_choices(schema):
            return self._one_of(choices)
        fitted = fit({**schema, "type": "array"}, self._bounds)
        least, most = int(str(fitted.get("minItems", 0))), int(str(fitted["maxItems"]))
        inner = self._rules.repeated(self.value(schema.get("items", {})), least, most)
        return self._rules.rule(f'"[" {inner} "]"')

    def _object(self, schema: JsonObject) -> str:
        required = _names(schema.get("required"))
        properties = as_object(schema.get("properties"))
        more = schema.get("additionalProperties")
        if properties or more is False or required:
            names = [*properties, *(name for name in required if name not in properties)]
            inner = self._rules.sequence(
                [(self._entry(name, properties.get(name, {})), name in required) for name in names]
            )
        else:
            value = self.value(more) if isinstance(more, dict) else self._anything(_DEEPEST - 1)
            inner = self._free_entries(value)
        return self._rules.rule(f'"{{" {inner} "}}"')

    def _entry(self, name: str, schema: JsonValue) -> str:
        key = quoted(f"{encode_value(name)}: ")
        return self._rules.rule(f"{key} {self.value(schema)}")

    def _free_entries(self, value: str) -> str:
        key = self._rules.terminal(strings.free(1, 100))
        entry = self._rules.rule(f'{key} ": " {value}')
        return self._rules.repeated(entry, 0, self._bounds.items)

    def _anything(self, depth: int) -> str:
        kinds = [self._of_kind(kind, {}) for kind in ("string", "number", "boolean", "null")]
        if depth > 0:
            inner = self._anything(depth - 1)
            listed = self._rules.repeated(inner, 0, self._bounds.items)
            kinds.append(self._rules.rule(f'"[" {listed} "]"'))
            kinds.append(self._rules.rule(f'"{{" {self._free_entries(inner)} "}}"'))
        return self._any(kinds)

    def _one_of(self, options: Iterable[JsonValue]) -> str:
        return self._any(quoted(encode_value(option)) for option in options)

    def _any(self, alternatives: Iterable[str]) -> str:
        return self._rules.rule(" | ".join(dict.fromkeys(alternatives)))

    def _reference(self, ref: str) -> str:
        """A referenced schema, as one rule however often it is named: it may name itself."""
        if ref not in self._named:
            self._named[ref] = name = self._rules.reserve()
            target: JsonValue = self._document
            for part in ref.removeprefix("#").strip("/").split("/"):
                if part:
                    key = part.replace("~1", "/").replace("~0", "~")
                    target = as_object(target).get(key, {})
            self._rules.define(name, self.value(target))
        return self._named[ref]

    def _with_definitions(self, schema: JsonObject) -> JsonObject:
        for key in ("$defs", "definitions"):
            inner = as_object(self._document.get(key))
            if inner:
                schema[key] = {name: fit(each, self._bounds) for name, each in inner.items()}
        return schema


def _names(value: JsonValue | None) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
