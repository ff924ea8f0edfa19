"""Checks a call's arguments against its tool's JSON Schema.

First they are mended where that loses nothing, then they are validated (JSON Schema draft 2020-12,
formats included). What is wrong is told in words that a small model can act on: which parameter,
what was expected, what was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from pydantic import JsonValue

from corral.messages import ToolSpec
from corral.model_runtime.parser.coercion import coerce_arguments
from corral.model_runtime.parser.quick_checks import Schema, types_of
from corral.model_runtime.parser.schemas import Prepared, prepare, prepare_for

__all__ = ["ArgumentError", "check_arguments", "check_tool_arguments"]

_LONGEST = 80
_CODES = {
    "required": "missing_required",
    "additionalProperties": "unknown_parameter",
    "unevaluatedProperties": "unknown_parameter",
    "type": "type_mismatch",
    "anyOf": "type_mismatch",
    "oneOf": "type_mismatch",
    "enum": "invalid_enum",
    "const": "invalid_enum",
}
_ORDER = ("missing_required", "unknown_parameter", "type_mismatch", "invalid_enum")
_RULES = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "pattern": "must match the pattern {}",
    "format": "must be written as a {}",
}
_TYPE_WORDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentError:
    """What is wrong with a call's arguments.

    `code` is one of the parser's codes of stage `validate`, `message` says it in words, and `path`
    is the parameter at fault, such as `rows[0].id`, empty if it is none in particular.
    """

    code: str
    message: str
    path: str = ""


def check_arguments(
    schema: Schema, arguments: dict[str, JsonValue], *, coerce: bool = True, validate: bool = True
) -> tuple[dict[str, JsonValue], tuple[str, ...]] | ArgumentError:
    """Mend and validate a call's arguments.

    Args:
        schema: The tool's JSON Schema, of type `object`; a parameter that it doesn't list is an
            error unless it says `additionalProperties`.
        arguments: The arguments; left as they are.
        coerce: Whether values of a wrong type are mended where that loses nothing.
        validate: Whether the arguments are validated.

    Returns:
        The arguments to call with and the warning codes of what was mended, or what is wrong. It
        never raises: a schema that can't be used is an error of code `unusable_schema`.
    """
    return _guarded(lambda: prepare(schema), arguments, coerce=coerce, validate=validate)


def check_tool_arguments(
    tool: ToolSpec, arguments: dict[str, JsonValue], *, coerce: bool = True, validate: bool = True
) -> tuple[dict[str, JsonValue], tuple[str, ...]] | ArgumentError:
    """`check_arguments` against a tool's schema, which is made ready only once."""
    return _guarded(
        lambda: prepare_for(tool, tool.parameters), arguments, coerce=coerce, validate=validate
    )


def _guarded(
    prepared_schema: Callable[[], Prepared],
    arguments: dict[str, JsonValue],
    *,
    coerce: bool,
    validate: bool,
) -> tuple[dict[str, JsonValue], tuple[str, ...]] | ArgumentError:
    try:
        prepared = prepared_schema()
        if prepared.plainly_fits(arguments):
            return arguments, ()
        warnings: tuple[str, ...] = ()
        if coerce:
            arguments, warnings = coerce_arguments(prepared, arguments)
        error = _find_error(prepared, arguments) if validate else None
    except Exception as fault:  # Schemas are foreign, and validators raise whatever they like.
        return ArgumentError(
            code="unusable_schema",
            message=f"the schema of its parameters can't be used ({_short(str(fault))})",
        )
    return error or (arguments, warnings)


def _find_error(prepared: Prepared, arguments: dict[str, JsonValue]) -> ArgumentError | None:
    missing = [name for name in prepared.required if name not in arguments]
    if missing:
        return _missing(missing, prepared.parameters)
    if prepared.closed:
        unknown = [name for name in arguments if name not in prepared.parameters]
        if unknown:
            return _unknown(unknown, prepared.parameters)
    if prepared.plainly_fits(arguments):
        return None
    # A list can be wrong in a thousand places; the first few are enough to choose from.
    errors = [_explain(error) for error in islice(prepared.validator.iter_errors(arguments), 20)]
    return min(errors, key=_rank, default=None)


def _rank(error: ArgumentError) -> int:
    return _ORDER.index(error.code) if error.code in _ORDER else len(_ORDER)


def _missing(names: Iterable[str], parameters: Mapping[str, Schema], at: str = "") -> ArgumentError:
    name = next(iter(names))
    types = types_of(parameters.get(name, {}))
    kind = f" ({_any_of(types)})" if types else ""
    where = f"{at!r} needs" if at else "it needs the parameter"
    return ArgumentError(
        code="missing_required",
        message=f"{where} {name!r}{kind}, which is missing",
        path=at or name,
    )


def _unknown(names: Iterable[str], parameters: Iterable[str], at: str = "") -> ArgumentError:
    name = next(iter(names))
    known = ", ".join(parameters)
    where = f"{at!r} has no member" if at else "it has no parameter"
    return ArgumentError(
        code="unknown_parameter",
        message=f"{where} {name!r}. It has {known if known else 'no parameters'}",
        path=f"{at}.{name}" if at else name,
    )


def _explain(error: Any) -> ArgumentError:
    """One of jsonschema's errors in our codes and words."""
    path = _path(error.absolute_path)
    rule = str(error.validator)
    value, wanted = error.instance, error.validator_value
    code = _CODES.get(rule, "invalid_value")
    if code == "missing_required":
        missing = [name for name in wanted if name not in value]
        return _missing(missing, error.schema.get("properties", {}), path)
    if code == "unknown_parameter":
        known = error.schema.get("properties", {})
        return _unknown([name for name in value if name not in known] or ["?"], known, path)
    if rule == "type":
        says = f"must be {_any_of(types_of(error.schema))}"
    elif rule in ("anyOf", "oneOf"):
        types = types_of(error.schema)
        says = f"must be {_any_of(types)}" if types else "fits none of the allowed forms"
    elif code == "invalid_enum":
        choices = cast("list[object]", wanted) if rule == "enum" else [wanted]
        says = f"must be one of {', '.join(_short(repr(item)) for item in choices[:20])}"
    else:
        says = _RULES.get(rule, f"breaks the rule {rule!r} ({{}})").format(_short(repr(wanted)))
    return ArgumentError(code=code, message=f"{path!r} {says}, not {_shown(value)}", path=path)


def _path(steps: Iterable[str | int]) -> str:
    """`rows[0].id`."""
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _any_of(types: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(_TYPE_WORDS.get(name, name) for name in types))


def _shown(value: JsonValue) -> str:
    """A value as the model may have written it, with its type where that is not plain."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case str():
            return f"the string {_short(repr(value))}"
        case list():
            return f"the list {_short(repr(value))}"
        case dict():
            return f"the object {_short(repr(value))}"
        case _:
            return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
