"""A call that can't be read, written once more by a model that can't write it wrong.

Where a runtime can hold a model to a JSON Schema, a call that was malformed, or didn't fit its
tool, is asked for again before it counts as an error: the model is shown what it wrote and what is
wrong with it, and held to the calls of the tools that it was offered. What comes is checked like
any output; if it still isn't a call, the first attempt stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias, cast

from pydantic import JsonValue

from corral.errors import ConfigError, ContextOverflow, ModelError
from corral.events import Usage
from corral.messages import AssistantMessage, InvalidCall, Message, ToolResult, ToolSpec
from corral.model_runtime.parser import parse_output
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Constraint, Finish, Runtime, Sampling

__all__ = ["MENDED", "NOT_MENDED", "calls_schema", "can_mend", "mend"]

MENDED = "call_written_again"
"""The warning on a message whose calls come from a second, constrained attempt."""

NOT_MENDED = "call_not_written_again"
"""The warning on a message for which that attempt came to nothing."""

MakePrompt: TypeAlias = Callable[[Sequence[Message]], Awaitable[tuple[Prompt, Sampling]]]


def can_mend(runtime: Runtime, tools: Sequence[ToolSpec]) -> bool:
    """Whether a model can be asked to write a call again under a constraint."""
    return bool(tools) and "json" in runtime.constrains


async def mend(
    runtime: Runtime,
    history: Sequence[Message],
    message: AssistantMessage,
    invalid: InvalidCall,
    *,
    tools: Sequence[ToolSpec],
    make_prompt: MakePrompt,
) -> tuple[AssistantMessage, Usage]:
    """Ask for a message's unreadable call once more.

    Args:
        runtime: The model's runtime; it must be one that `can_mend`.
        history: What the model had been shown.
        message: What it said.
        invalid: The part of it that can't be read.
        tools: What it was offered.
        make_prompt: Renders a conversation, and says how to sample.

    Returns:
        The message with calls in place of the unreadable one, or as it was; and the tokens that
        this took.
    """
    told = ToolResult(
        call_id=invalid.id,
        name="",
        content=f"error: {invalid.message} Write the call again, as JSON.",
        is_error=True,
    )
    unmended = message.model_copy(update={"warnings": (*message.warnings, NOT_MENDED)})
    attempted = sum(invalid.raw.count(tool.name) for tool in tools)
    constraint = Constraint(json_schema=calls_schema(tools, most=max(1, attempted)))
    text, finish = "", None
    try:
        prompt, sampling = await make_prompt([*history, message, told])
        text, finish = await _output(runtime, prompt, sampling, constraint)
    except (ConfigError, ContextOverflow, ModelError):
        # There is no room for it, or the runtime can't do it: the first attempt is an answer too.
        return unmended, Usage()
    if finish is None:
        return unmended, Usage()
    again = parse_output(text, tools=tools, stop_reason=finish.reason)
    if not again.calls:
        return unmended, finish.usage
    mended = AssistantMessage(
        text=message.text,
        calls=again.calls,
        stop_reason=message.stop_reason,
        warnings=(*message.warnings, MENDED, *again.warnings),
    )
    return mended, finish.usage


async def _output(
    runtime: Runtime, prompt: Prompt, sampling: Sampling, constraint: Constraint
) -> tuple[str, Finish | None]:
    parts: list[str] = []
    finish: Finish | None = None
    pieces = runtime.generate(prompt, sampling=sampling, constraint=constraint)
    async with aclosing(pieces) as output:
        async for piece in output:
            if isinstance(piece, Finish):
                finish = piece
            elif not piece.is_special:
                parts.append(piece.text)
    return "".join(parts), finish


def calls_schema(tools: Sequence[ToolSpec], *, most: int) -> dict[str, JsonValue]:
    """The JSON Schema of a list of one or more calls of these tools, at `most` so many."""
    definitions: dict[str, JsonValue] = {}
    kinds: list[JsonValue] = []
    for number, tool in enumerate(tools):
        parameters = cast("dict[str, Any]", _rebased(tool.parameters, number))
        for name, schema in parameters.pop("$defs", {}).items():
            definitions[f"t{number}_{name}"] = schema
        kinds.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "parameters": parameters},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, JsonValue] = {
        "type": "array",
        "items": {"anyOf": kinds},
        "minItems": 1,
        "maxItems": most,
    }
    return {**schema, "$defs": definitions} if definitions else schema


def _rebased(schema: Any, number: int) -> Any:
    """A tool's schema as a part of a larger one: its references lead to where its parts go."""
    if isinstance(schema, list):
        return [_rebased(item, number) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    out: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", schema).items():
        if key == "$ref" and isinstance(value, str):
            out[key] = value.replace("#/$defs/", f"#/$defs/t{number}_", 1)
        elif key in ("const", "enum", "default", "examples"):
            out[key] = value
        else:
            out[key] = _rebased(value, number)
    return out
