"""The codes of what can be wrong with a call, and of what was mended in one.

An error code says why nothing in a message may run, and at which stage that was found: while
reading the text (`parse`) or while checking the calls that it holds against the tools that were
offered (`validate`). A warning code says what had to be mended in calls that do run.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["ERROR_STAGES", "INFORMATIONAL", "WARNINGS", "Stage", "describe", "refuse"]

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

_MENDED: dict[Stage, dict[str, str]] = {
    "parse": {
        "python_literal": "JSON held Python's quotes, words or numbers, such as 'x', True, .5",
        "fenced": "The whole message was one fence of backquotes around calls",
        "trailing_text": "Text followed the calls; it is the message's text",
        "trailing_comma": "A comma stood before a closing bracket",
        "stray_separator": "A semicolon stood where nothing was to be separated",
        "comma_separator": "Calls were separated by commas without being a list",
        "repeated_python_tag": "The tag stood before further calls too",
        "missing_closing_brace": "The model stopped before the last bracket of a call in JSON",
        "missing_closing_bracket": "The model stopped before the last bracket of a list of calls",
        "missing_list_brackets": "Calls stood without the brackets of a list",
        "multiple_lists": "Calls stood in several lists",
        "json_literal": "A pythonic call held JSON's words: true, false, null",
        "tuple_as_list": "A value was written as a tuple; it is a list",
        "control_char_in_string": "A string held the end of a line, or another control character",
        "invalid_escape": "A string held an escape that is none, of plain meaning",
        "stringified_arguments": "The arguments were an object written into a string",
        "null_arguments": "The arguments were null; they are empty",
        "empty_list_arguments": "The arguments were an empty list; they are empty",
        "missing_arguments_key": "There were no arguments; they are empty",
        "openai_nested": "The call stood under `function`, as OpenAI nests it",
        "name_key_function": "The tool's name stood under `function`",
        "name_whitespace": "The tool's name had blanks around it",
        "extra_keys": "The call had keys that mean nothing",
        "unexpected_type": "The call's `type` was not `function`",
        "malformed_function_tag": "The tag `<function=...>` was damaged",
        "stray_after_arguments": "Brackets or quotes stood before the tag `</function>`",
        "missing_function_close": "The tag `</function>` was missing or damaged",
        "missing_python_tag": "A built-in tool was called without the tag",
        "builtin_syntax": "A tool was called as built-ins are: `name.call(...)`",
        "discarded_after_stop": "What came after the end of the message was left out",
    },
    "validate": {
        "coerced_type": "A value had another type than the schema asks, and the same meaning",
        "dropped_null_optional": "An optional parameter was given as nothing, and left out",
    },
}

WARNINGS: dict[str, Stage] = {code: stage for stage, codes in _MENDED.items() for code in codes}
"""Warning code -> the stage that it belongs to. In strict mode each is an error of that stage."""

_TOLD = {
    "duplicate_call": "Two calls of the message are equal",
    "possible_tool_call": "The message is text that quotes a call, or was meant as one",
}

INFORMATIONAL = frozenset(_TOLD)
"""Codes that only tell: nothing was mended, and strict mode passes them."""

ERROR_STAGES: dict[str, Stage] = {
    **dict.fromkeys(_PARSE, "parse"),
    **dict.fromkeys(_VALIDATE, "validate"),
    **{code: stage for code, stage in WARNINGS.items() if code not in _PARSE},
}
"""Error code -> the stage at which it is found. Warning codes are here for strict mode."""


def describe(code: str) -> str:
    """What a code means, in a sentence without its full stop; an error's is for the model."""
    for meanings in (_PARSE, _VALIDATE, _TOLD):
        if code in meanings:
            return meanings[code]
    return next((codes[code] for codes in _MENDED.values() if code in codes), "")


def refuse(code: str) -> str:
    """What to tell the model where strict mode makes an error of a warning."""
    return f"The call is not written exactly as asked ({code.replace('_', ' ')})"
