"""Checks the calls of a message against what was offered: all of them may run, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import JsonValue

from corral.model_runtime.parser.arguments import ArgumentError, check_tool_arguments
from corral.model_runtime.parser.codes import INFORMATIONAL, describe, refuse
from corral.model_runtime.parser.literals import BLANKS, Fault
from corral.model_runtime.parser.offer import Found, Offer
from corral.model_runtime.parser.reader import CUT_CODE
from corral.model_runtime.parser.region import Turn

if TYPE_CHECKING:
    from corral.model_runtime.parser.output import ParserOptions

__all__ = ["check_calls", "explain"]

_BUILTIN_PARAMETERS = {"brave_search": "query", "wolfram_alpha": "query"}
"""Llama's own tools and their one parameter, a string (Meta's `llama3_1/prompt_format.md`)."""

_LISTS_TOOLS = ("malformed_call", "not_a_call", "empty_call", "code_interpreter_disabled")
_SHOWS_PLACE = (
    "invalid_json",
    "invalid_escape",
    "mixed_list",
    "non_literal",
    "ambiguous_string",
    "positional_arguments",
    "malformed_call",
)
_SHOWN = 24
_SHOWS_FORM = (
    *_LISTS_TOOLS,
    "truncated",
    "invalid_json",
    "mixed_list",
    "non_literal",
    "ambiguous_string",
    "positional_arguments",
)


def check_calls(turn: Turn, calls: Sequence[Found], options: ParserOptions) -> list[Found]:
    """The calls as they may run.

    Args:
        turn: What was offered; its warnings gain what had to be mended.
        calls: The calls as they were read.
        options: How strict to be.

    Raises:
        Fault: One of them may not run, so none does.
    """
    if len(calls) > turn.max_calls:
        raise turn.too_many(calls[turn.max_calls])
    if len(calls) > 1 and not options.parallel:
        raise Fault("parallel_not_allowed", at=calls[1].at)
    for call in calls:
        if call.name not in turn.offer.names:
            raise Fault("unknown_tool", _unknown(call.name, turn.offer), at=call.at)
    checked = [Found(call.name, _check(turn, call, options), call.at) for call in calls]
    if len(checked) > 1 and any(call in checked[:at] for at, call in enumerate(checked)):
        turn.warn(["duplicate_call"])
    if options.strict:
        mended = next((code for code in turn.warnings if code not in INFORMATIONAL), None)
        if mended is not None:
            raise Fault(mended, f"{refuse(mended)}.", at=calls[0].at)
    return checked


def _unknown(name: str, offer: Offer) -> str:
    shown = name if len(name) <= 60 else name[:57] + "..."
    return f"There is no tool {shown!r}. The tools are: {offer.listed()}."


def _check(turn: Turn, call: Found, options: ParserOptions) -> dict[str, JsonValue]:
    """A call's arguments, mended as far as may be."""
    offer = turn.offer
    tool = offer.tools.get(call.name)
    only = "code" if call.name == offer.interpreter else None
    if call.name in offer.builtins and only is None:
        only = _BUILTIN_PARAMETERS.get(call.name)
    if only is not None:
        if call.arguments.keys() != {only} or not isinstance(call.arguments[only], str):
            words = f"{call.name!r} takes one parameter, {only!r}, which is a string."
            raise Fault("builtin_arguments", words, at=call.at)
        return call.arguments
    if tool is None or "parameters" not in tool.model_fields_set:
        # Nothing is known of its parameters; the default merely lists none.
        if options.validate and _is_schema(call.arguments):
            words = f"The call of {call.name!r} repeats a schema. Give the parameters' values."
            raise Fault("unknown_parameter", words, at=call.at)
        return call.arguments
    result = check_tool_arguments(
        tool, call.arguments, coerce=options.coerce, validate=options.validate
    )
    if isinstance(result, ArgumentError):
        words = f"In the call of {call.name!r}: {result.message}."
        raise Fault(result.code, words, at=call.at)
    turn.warn(result[1])
    return result[0]


def _is_schema(arguments: dict[str, JsonValue]) -> bool:
    return arguments.get("type") == "object" and isinstance(arguments.get("properties"), dict)


def explain(fault: Fault, raw: str, offer: Offer) -> str:
    """A fault in words that a small model can act on."""
    says = fault.words
    if not says or says.endswith(":"):  # Nothing, or only where.
        says = f"{says} {describe(fault.code)}.".lstrip()
    if fault.code in _LISTS_TOOLS:
        says += f" The tools are: {offer.listed()}."
    if fault.code in _SHOWS_PLACE and 0 <= fault.at < len(raw):
        says += f" Reading stopped at {raw[fault.at : fault.at + _SHOWN]!r}."
    if fault.code in _SHOWS_FORM and fault.words != CUT_CODE:
        says += f" A call is written as {_form(raw.lstrip(BLANKS))}"
    return says


def _form(raw: str) -> str:
    """The way of writing calls that the model seems to have meant."""
    if raw.startswith(("{", "[{", "```")):
        return '{"name": "tool", "parameters": {"parameter": "value"}}'
    if raw.startswith("<function"):
        return '<function=tool>{"parameter": "value"}</function>'
    return "[tool(parameter='value')]"
