"""How a call's arguments are mended and checked, and how the model is told what is wrong."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.messages import ToolSpec
from corral.model_runtime.parser import (
    ArgumentError,
    ParserOptions,
    check_arguments,
    parse_output,
)
from corral.model_runtime.parser.quick_checks import quick_check

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "abc", 0.5])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=5,
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"])
PLAIN_SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
            "enum": st.lists(VALUES, max_size=3),
            "minimum": st.integers(-2, 2),
            "exclusiveMaximum": st.integers(-2, 2),
            "minLength": st.integers(0, 2),
            "maxItems": st.integers(0, 2),
            "required": st.lists(st.sampled_from("ab"), unique=True),
            "additionalProperties": st.booleans(),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "required": st.lists(st.sampled_from("ab"), unique=True),
            "additionalProperties": st.booleans(),
        },
    ),
    max_leaves=4,
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


@pytest.mark.parametrize(
    ("output", "code", "there"),
    [
        ("[find(x=other)]", "non_literal", "other)]"),
        ("  [find(x=1, x=2)]", "duplicate_argument", "x=2)]"),
        ('{"name": "find", "parameters": {"x": 01}}', "invalid_json", "01}}"),
        ('```json\n{"name": "find", "parameters": {"x": }}\n```', "invalid_json", "}}\n```"),
        ("[find(x=1), 5]", "mixed_list", "5]"),
        ('[find(x="y', "truncated", ""),
        ("[find(), burn(x=1)]", "unknown_tool", "burn(x=1)]"),
        ("<function=find>5</function>", "arguments_not_object", "5</function>"),
        ('{"name": "find", "parameters": {}}; {"parameters": {}}', "malformed_call", '{"para'),
    ],
)
def test_the_place_of_the_fault_is_told(output: str, code: str, there: str) -> None:
    tools = [ToolSpec(name="find", description="")]
    invalid = parse_output(output, tools=tools).invalid
    assert invalid is not None and invalid.code == code
    assert invalid.position is not None
    assert invalid.raw[invalid.position :].startswith(there)
    assert len(invalid.raw) - invalid.position >= len(there)
    if code in ("non_literal", "invalid_json", "mixed_list"):
        assert repr(there) in invalid.message


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_what_passes_quickly_passes_the_general_validator_too(data: st.DataObject) -> None:
    schema = data.draw(PLAIN_SCHEMAS)
    value = data.draw(VALUES)
    check = quick_check(schema)
    if check is not None and check(value):
        jsonschema.Draft202012Validator(schema).validate(value)


def test_the_quick_way_knows_the_schemas_of_most_tools() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where", "minLength": 1},
            "days": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]},
            "unit": {"enum": ["c", "f"], "default": "c"},
            "spots": {"type": "array", "items": {"type": "object"}, "maxItems": 3},
        },
        "required": ["city"],
        "additionalProperties": False,
    }
    check = quick_check(schema)
    assert check is not None
    assert check({"city": "Oslo", "days": None, "unit": "f", "spots": [{}]})
    for wrong in (
        {"city": ""},
        {"city": "Oslo", "days": 0},
        {"city": "Oslo", "unit": "k"},
        {"city": "Oslo", "spots": [{}, {}, {}, {}]},
        {"days": 1},
        {"city": "Oslo", "x": 1},
    ):
        assert not check(wrong)


@pytest.mark.parametrize(
    ("format", "right", "wrong"),
    [
        ("date", ["2025-03-04"], ["2025-13-04", "4 March", ""]),
        (
            "date-time",
            ["2025-03-04T09:30:00Z", "2025-03-04t09:30:00.5+01:00", "2025-03-04 09:30:00"],
            ["2025-03-04", "tomorrow", "2025-03-04T25:00:00Z", "2025-02-30T09:30:00Z", ""],
        ),
        ("time", ["09:30:00", "09:30:00Z", "09:30:00.25-02:00"], ["9:30", "0930", "25:00:00"]),
        (
            "duration",
            ["P3D", "PT4H5M", "P1Y2M3DT4H5M6S", "P2W"],
            ["3 days", "P", "PT", "P3", "PT5M4H", "P1W2D", "P-1D"],
        ),
        ("uri", ["https://example.org/a?b#c", "mailto:a@b"], ["example.org", "a b:c", "http://ü"]),
        ("uri-reference", ["/a/b", "#c", "https://example.org"], ["a b", "<a>"]),
        ("hostname", ["example.org", "a-b.example"], ["-a.example", "a_b", "", "a..b"]),
        ("json-pointer", ["", "/rows/0", "/a~1b"], ["rows", "/a~b"]),
        ("email", ["a@example.org"], ["a"]),
        ("uuid", ["12345678-1234-1234-1234-123456789abc"], ["12345678"]),
        ("ipv4", ["127.0.0.1"], ["127.0.0.256"]),
        ("an unknown one", ["x"], []),
    ],
)
def test_formats_are_checked(format: str, right: list[str], wrong: list[str]) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"x": {"type": "string", "format": format}},
    }
    for value in right:
        assert check_arguments(schema, {"x": value}) == ({"x": value}, ())
    for value in wrong:
        result = check_arguments(schema, {"x": value})
        assert isinstance(result, ArgumentError) and result.code == "invalid_value", value


def test_a_value_must_fit_exactly_one_of_the_forms_under_one_of() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "when": {
                "oneOf": [
                    {"type": "string", "format": "date"},
                    {"type": "object", "properties": {"in": {"$ref": "#/$defs/days"}}},
                    {"type": "integer"},
                ]
            }
        },
        "$defs": {"days": {"type": "integer", "minimum": 1}},
    }
    for fits in ("2025-03-04", {"in": 3}, 7):
        assert check_arguments(schema, {"when": fits}) == ({"when": fits}, ())
    mended = check_arguments(schema, {"when": {"in": "3"}})
    assert mended == ({"when": {"in": 3}}, ("coerced_type",))
    for wrong in ("soon", {"in": 0}, 2.5, [1]):
        assert isinstance(check_arguments(schema, {"when": wrong}), ArgumentError)
