"""The codes of what can be wrong with a call, and of what was mended in one.

An error code says why nothing in a message may run, and at which stage that was found: while
reading the text (`parse`) or while checking the calls that it holds against the tools that were
offered (`validate`). A warning code says what had to be mended in calls that do run.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["ERROR_STAGES", "INFORMATIONAL", "WARNINGS", "Stage", "describe"]

Stage: TypeAlias = Literal["parse", "validate"]
"""Where an error is found: in the text itself, or in calls that could be read."""

_PARSE: dict[str, str] = {
    "truncated": "The call was cut off before its end, so it did not run. Write all of it again",
    "invalid_json": "The call is not valid JSON. Quote every key and string with double quotes",
    "invalid_escape": "A string holds a backslash that means nothing there. Write it as \\\\",
    "invalid_unicode": "A string holds half of a character. Write the character itself",
    "duplicate_key": "An object names the same key twice. Name every key once",
    "non_finite_number": "A value is not a finite number. Give a plain number",
    "number_too_long": "A number has too many digits. Give a shorter number",
    "too_deep": "The values are nested too deeply. Use fewer brackets inside one another",
    "ambiguous_arguments": "Both `parameters` and `arguments` are given. Give only `parameters`",
    "arguments_not_object": "The parameters must be an object of names and values",
    "malformed_call": "This is not a whole call. Give a tool's name and its parameters",
    "mixed_list": "The list holds calls and other things. Put nothing but calls in it",
    "not_a_call": "This is not a call of a tool",
    "non_literal": "A value is not a plain value. Write strings in quotes, and compute nothing",
    "ambiguous_string": "It is unclear where a string ends. Put a backslash before inner quotes",
    "positional_arguments": "A value has no parameter name. Write every value as name=value",
    "duplicate_argument": "A parameter is given twice. Give every parameter once",
    "empty_call": "There is no call where one was begun",
    "too_many_calls": "There are too many calls in one message. Make fewer calls at once",
    "parallel_not_allowed": "Only one call is allowed in a message. Make one call, then wait",
    "code_interpreter_disabled": "There is no code interpreter, so code can't be run",
}

_VALIDATE: dict[str, str] = {
    "unknown_tool": "No tool of this name was offered",
    "missing_required": "A required parameter is missing",
    "unknown_parameter": "The tool has no such parameter",
    "type_mismatch": "A parameter has a value of the wrong type",
    "invalid_enum": "A parameter's value is none of those allowed",
    "invalid_value": "A parameter's value breaks one of the tool's rules",
    "builtin_arguments": "A built-in tool was given the wrong parameters",
    "unusable_schema": "The tool's own description of its parameters can't be used",
}

WARNINGS: dict[str, Stage] = {
    "python_literal": "parse",
    "fenced": "parse",
    "trailing_text": "parse",
    "trailing_comma": "parse",
    "stray_separator": "parse",
    "comma_separator": "parse",
    "repeated_python_tag": "parse",
    "missing_closing_brace": "parse",
    "missing_closing_bracket": "parse",
    "missing_list_brackets": "parse",
    "multiple_lists": "parse",
    "json_literal": "parse",
    "tuple_as_list": "parse",
    "control_char_in_string": "parse",
    "invalid_escape": "parse",
    "stringified_arguments": "parse",
    "null_arguments": "parse",
    "empty_list_arguments": "parse",
    "missing_arguments_key": "parse",
    "openai_nested": "parse",
    "name_key_function": "parse",
    "name_whitespace": "parse",
    "extra_keys": "parse",
    "unexpected_type": "parse",
    "malformed_function_tag": "parse",
    "stray_after_arguments": "parse",
    "missing_function_close": "parse",
    "missing_python_tag": "parse",
    "builtin_syntax": "parse",
    "discarded_after_stop": "parse",
    "coerced_type": "validate",
    "dropped_null_optional": "validate",
}
"""Warning code -> the stage that it belongs to. In strict mode each is an error of that stage."""

INFORMATIONAL = frozenset({"duplicate_call", "possible_tool_call"})
"""Codes that only tell: nothing was mended, and strict mode passes them.

`duplicate_call` is two equal calls in one message, `possible_tool_call` a text that quotes a call.
"""

ERROR_STAGES: dict[str, Stage] = {
    **dict.fromkeys(_PARSE, "parse"),
    **dict.fromkeys(_VALIDATE, "validate"),
    **{code: stage for code, stage in WARNINGS.items() if code not in _PARSE},
}
"""Error code -> the stage at which it is found. Warning codes are here for strict mode."""


def describe(code: str) -> str:
    """What an error code means, in a sentence for the model, without its full stop."""
    words = _PARSE.get(code) or _VALIDATE.get(code)
    return words or f"The call is not written exactly as asked ({code.replace('_', ' ')})"
