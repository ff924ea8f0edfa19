"""Llama 3.2 text (1B, 3B): pythonic calls, tools in the system message, code interpreter.

Source: Meta's llama-models, `models/llama3_2/text_prompt_format.md`: "Zero shot function calling"
for the functions, "Code Interpreter" for the environment lines. Where both are offered the
environment lines come first, as they do in Meta's other combined prompts, and the agent's own
instructions come last. A result of a call is an `ipython` message.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence

from corral.errors import ConfigError
from corral.messages import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolCall,
    ToolResult,
    ToolSpec,
    UserMessage,
)
from corral.model_runtime.formats.pythonic import encode_calls
from corral.model_runtime.prompt import Prompt, Segment, Special, Text, text_segments

__all__ = ["render"]

_KNOWLEDGE_CUTOFF = "December 2023"

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

_FUNCTIONS = """\
You are an expert in composing functions. You are given a question and a set of possible functions.
Based on the question, you will need to make one or more function/tool calls to achieve the purpose.
If none of the function can be used, point it out. \
If the given question lacks the parameters required by the function,
also point it out. You should only return the function call in tools call sections.

If you decide to invoke any of the function(s), you MUST put it in the format of \
[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]
You SHOULD NOT include any other text in the response.

Here is a list of functions in JSON format that you can invoke.

"""


def render(
    messages: Sequence[Message],
    *,
    tools: Sequence[ToolSpec] = (),
    date: datetime.date | None = None,
) -> Prompt:
    """Render a conversation in Llama 3.2's text format. See `render_prompt`."""
    system, rest = _split_system(messages)
    segments: list[Segment] = [Special("<|begin_of_text|>", "system")]
    body = list(_system_body(system, tools, date))
    if body:
        segments += [*_header("system", "system"), *body, Special("<|eot_id|>", "system")]
    interpreter = next((t.name for t in tools if t.kind == "code_interpreter"), "code_interpreter")
    for message in rest:
        segments += _message(message, interpreter)
    segments += _header("assistant", "assistant")
    return Prompt(tuple(segments))


def _split_system(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    if messages and isinstance(messages[0], SystemMessage):
        return messages[0].text, messages[1:]
    return "", messages


def _header(role: str, part: str) -> list[Segment]:
    return [
        Special("<|start_header_id|>", part),
        Text(role, part),
        Special("<|end_header_id|>", part),
        Text("\n\n", part),
    ]


def _system_body(
    instructions: str, tools: Sequence[ToolSpec], date: datetime.date | None
) -> Iterator[Text]:
    functions = [tool for tool in tools if tool.kind == "function"]
    environment = ""
    if any(tool.kind == "code_interpreter" for tool in tools):
        environment = "Environment: ipython"
        if date is not None:
            environment += f"\n\nCutting Knowledge Date: {_KNOWLEDGE_CUTOFF}\n"
            environment += f"Today Date: {_long_date(date)}\n"
        if functions or instructions:
            environment += "\n" if environment.endswith("\n") else "\n\n"
    yield from text_segments([environment], "system")
    if functions:
        listed = json.dumps([_listed(tool) for tool in functions], indent=4, ensure_ascii=False)
        yield Text(_FUNCTIONS + listed + ("\n\n" if instructions else ""), "tools")
    yield from text_segments([instructions], "system")


def _listed(tool: ToolSpec) -> dict[str, object]:
    """A function as Meta lists it: `dict` for the outer type, `required` in front."""
    schema = dict(tool.parameters)
    schema.pop("type", None)
    parameters: dict[str, object] = {
        "type": "dict",
        "required": schema.pop("required", []),
        "properties": schema.pop("properties", {}),
    }
    schema.pop("additionalProperties", None)
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": {**parameters, **schema},
    }


def _long_date(date: datetime.date) -> str:
    """`24 September 2024`, in English whatever the locale."""
    return f"{date.day:02d} {_MONTHS[date.month - 1]} {date.year}"


def _message(message: Message, interpreter: str) -> list[Segment]:
    match message:
        case UserMessage():
            if not isinstance(message.content, str) and any(
                part.kind == "image" for part in message.content
            ):
                raise ConfigError(
                    "This conversation holds an image, and Llama 3.2's text models see none. "
                    "Leave the image out, or use a vision model."
                )
            body: list[Segment] = [*text_segments([message.text], "user")]
            return [*_header("user", "user"), *body, Special("<|eot_id|>", "user")]
        case AssistantMessage():
            return [*_header("assistant", "assistant"), *_said(message, interpreter)]
        case ToolResult():
            shown = (
                message.content
                if isinstance(message.content, str)
                else json.dumps(message.content, ensure_ascii=False)
            )
            body = [*text_segments([shown], "result")]
            return [*_header("ipython", "result"), *body, Special("<|eot_id|>", "result")]
        case SystemMessage():
            raise ConfigError("A system message can only be the first message of a conversation.")


def _said(message: AssistantMessage, interpreter: str) -> list[Segment]:
    """The message as the model would have written it: text, its calls, the end token."""
    part = "assistant"
    end = "<|eom_id|>" if message.stop_reason == "end_of_message" else "<|eot_id|>"
    said: list[Segment] = [*text_segments([message.text], part)]
    if message.invalid is not None:
        if message.invalid.tagged:
            said.append(Special("<|python_tag|>", part))
        said += text_segments([message.invalid.raw], part)
    elif len(message.calls) == 1 and _is_code(message.calls[0], interpreter):
        code = message.calls[0].arguments["code"]
        said += [Special("<|python_tag|>", part), *text_segments([str(code)], part)]
        end = "<|eom_id|>"
    elif message.calls:
        said.append(Text(encode_calls(message.calls), part))
    return [*said, Special(end, part)]


def _is_code(call: ToolCall, interpreter: str) -> bool:
    return call.name == interpreter and call.arguments.keys() == {"code"}
