"""How a call's arguments are mended and checked, and how the model is told what is wrong."""

from typing import Any

import pytest

from corral.messages import ToolSpec
from corral.model_runtime.parser import (
    ArgumentError,
    ParserOptions,
    check_arguments,
    parse_output,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["c", "f"]},
        "exact": {"type": "boolean"},
        "ratio": {"type": "number"},
        "when": {"type": "string", "format": "date"},
        "spots": {"type": "array", "items": {"$ref": "#/$defs/spot"}},
        "level": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "note": {"type": "integer", "default": None},
    },
    "required": ["city"],
    "$defs": {
        "spot": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    },
}


@pytest.mark.parametrize(
    ("given", "mended"),
    [
        ({"days": "3"}, {"days": 3}),
        ({"days": 3.0}, {"days": 3}),
        ({"ratio": "2.5"}, {"ratio": 2.5}),
        ({"exact": "true"}, {"exact": True}),
        ({"exact": "False"}, {"exact": False}),
        ({"city": 90210}, {"city": "90210"}),
        ({"spots": '[{"x": "1"}]'}, {"spots": [{"x": 1}]}),
        ({"spots": "[{'x': 1}]"}, {"spots": [{"x": 1}]}),
        ({"level": "7"}, {"level": 7}),
        ({"level": None}, {"level": None}),
        ({"note": None}, {"note": None}),
        ({"days": None}, {}),
        ({"days": ""}, {}),
        ({"exact": "None"}, {}),
    ],
)
def test_what_has_one_meaning_is_mended(given: dict[str, Any], mended: dict[str, Any]) -> None:
    result = check_arguments(SCHEMA, {"city": "Oslo", **given})
    assert not isinstance(result, ArgumentError)
    assert repr(result[0]) == repr({"city": "Oslo", **mended})
    assert bool(result[1]) == (given != mended or repr(given) != repr(mended))


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        ({"days": "three"}, "type_mismatch", "'days' must be an integer, not the string 'three'"),
        ({"days": "007"}, "type_mismatch", "'days'"),
        ({"days": True}, "type_mismatch", "not true"),
        ({"days": 2.5}, "type_mismatch", "not 2.5"),
        ({"days": 0}, "invalid_value", "'days' must be at least 1, not 0"),
        ({"unit": "k"}, "invalid_enum", "'unit' must be one of 'c', 'f', not the string 'k'"),
        ({"exact": 1}, "type_mismatch", "'exact' must be true or false, not 1"),
        ({"when": "soon"}, "invalid_value", "'when' must be written as a 'date'"),
        ({"spots": {"x": 1}}, "type_mismatch", "'spots' must be a list"),
        ({"spots": [{"x": 1}, {}]}, "missing_required", "'spots[1]' needs 'x' (a number)"),
        ({"spots": [{"x": "a"}]}, "type_mismatch", "'spots[0].x' must be a number"),
        ({"level": "high"}, "type_mismatch", "'level' must be an integer or null"),
        ({"town": "Oslo"}, "unknown_parameter", "no parameter 'town'. It has city, days, unit"),
        ({"city": None}, "type_mismatch", "'city' must be a string, not null"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_what_was_expected(
    given: dict[str, Any], code: str, says: str
) -> None:
    result = check_arguments(SCHEMA, {"city": "Oslo", **given})
    assert isinstance(result, ArgumentError)
    assert result.code == code
    assert says in result.message


def test_a_missing_parameter_is_named_with_its_type() -> None:
    result = check_arguments(SCHEMA, {"days": 1})
    assert isinstance(result, ArgumentError)
    assert result.code == "missing_required"
    assert "'city' (a string)" in result.message


def test_the_arguments_given_are_left_as_they_are() -> None:
    given: dict[str, Any] = {"city": 1, "spots": [{"x": "1"}]}
    check_arguments(SCHEMA, given)
    assert given == {"city": 1, "spots": [{"x": "1"}]}


def test_mending_and_checking_can_be_switched_off() -> None:
    given: dict[str, Any] = {"city": "Oslo", "days": "3"}
    assert isinstance(check_arguments(SCHEMA, given, coerce=False), ArgumentError)
    assert check_arguments(SCHEMA, given, coerce=False, validate=False) == (given, ())
    tools = [ToolSpec(name="forecast", description="", parameters=SCHEMA)]
    text = "[forecast(city='Oslo', days='3', more=1)]"
    bench = ParserOptions(coerce=False, validate=False)
    (call,) = parse_output(text, tools=tools, options=bench).calls
    assert call.arguments == {"city": "Oslo", "days": "3", "more": 1}


def test_the_type_names_of_the_berkeley_benchmark_are_known() -> None:
    schema: dict[str, Any] = {
        "type": "dict",
        "properties": {
            "a": {"type": "float"},
            "b": {"type": "tuple", "items": {"type": "integer"}},
            "c": {"type": "any"},
            "d": {"type": "dict", "properties": {"type": {"type": "string"}}},
        },
        "required": ["a"],
    }
    given: dict[str, Any] = {"a": 1, "b": [1, 2], "c": None, "d": {"type": "x"}}
    assert check_arguments(schema, given) == (given, ())
    assert isinstance(check_arguments(schema, {"a": "x"}), ArgumentError)


def test_a_tool_may_take_parameters_that_it_does_not_list() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}
    assert check_arguments(schema, {"x": 1}) == ({"x": 1}, ())
    closed = check_arguments({"type": "object", "properties": {}}, {"x": 1})
    assert isinstance(closed, ArgumentError) and closed.code == "unknown_parameter"
    unsaid = [ToolSpec(name="free", description="")]
    assert parse_output("[free(x=1)]", tools=unsaid).calls


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"type": "wavy"}}},
        {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/schema"}}},
        {"type": "object", "properties": {"x": {"pattern": "("}}},
        {"type": "object", "properties": 3},
        {"type": "object", "properties": {"x": {1, 2}}},
    ],
)
def test_a_schema_that_cannot_be_used_is_said_to_be_so(schema: dict[str, Any]) -> None:
    result = check_arguments(schema, {"x": "y"})
    assert isinstance(result, ArgumentError)
    assert result.code == "unusable_schema"


def test_the_model_is_told_which_tools_there_are() -> None:
    tools = [ToolSpec(name=name, description="") for name in ("find", "lend")]
    message = parse_output("[burn(x=1)]", tools=tools)
    assert message.invalid is not None
    assert message.invalid.message == "There is no tool 'burn'. The tools are: find, lend."
    message = parse_output("[find(x=other)]", tools=tools)
    assert message.invalid is not None
    assert "'find'" in message.invalid.message and "'x'" in message.invalid.message
