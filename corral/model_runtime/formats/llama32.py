"""Llama 3.2 text (1B, 3B) and Llama 3.3: pythonic calls, zero-shot functions, code interpreter.

Sources: Meta's llama-models, `models/llama3_2/text_prompt_format.md` ("Zero shot function
calling", the same "with user message" and in "E2E format", "Code Interpreter") and
`models/llama3_3/prompt_format.md` for its wording of the user message; for the later system text,
Llama Stack 0.2, `models/llama/llama3/prompt_templates/system_prompts.py`. Where functions and the
code interpreter are both offered the environment's lines come first, as they do in Meta's other
combined prompts, and the agent's own instructions come last.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from corral.messages import Message, ToolCall, ToolSpec, UserMessage
from corral.model_runtime.formats.conversation import Wire, Writer, plain_result, split_system
from corral.model_runtime.formats.environment import date_lines, long_date
from corral.model_runtime.formats.pythonic import encode_calls
from corral.model_runtime.prompt import Prompt

__all__ = ["PythonicFormat"]

_INVOKE = """\
If you decide to invoke any of the function(s), you MUST put it in the format of \
[func_name1(params_name1=params_value1, params_name2=params_value2...), func_name2(params)]
"""
_LIST_FOLLOWS = "Here is a list of functions in JSON format that you can invoke.\n\n"

_DOCUMENTED = f"""\
You are an expert in composing functions. You are given a question and a set of possible functions.
Based on the question, you will need to make one or more function/tool calls to achieve the purpose.
If none of the function can be used, point it out. \
If the given question lacks the parameters required by the function,
also point it out. You should only return the function call in tools call sections.

{_INVOKE}\
You SHOULD NOT include any other text in the response.

{_LIST_FOLLOWS}"""

_LATER = f"""\
You are a helpful assistant. You have access to functions, but you should only use them if they \
are required.
You are an expert in composing functions. You are given a question and a set of possible functions.
Based on the question, you may or may not need to make one function/tool call to achieve the \
purpose.

{_INVOKE}\
If you decide to invoke a function, you SHOULD NOT include any other text in the response. besides \
the function call in the above format.
For a boolean parameter, be sure to use `True` or `False` (capitalized) for the value.


{_LIST_FOLLOWS}"""

_LATER_END = """

You can answer general questions or invoke tools when necessary.
In addition to tool calls, you should also augment your responses by using the tool outputs."""

_QUESTION = "Questions: "
_USER_LIST = "\nHere is a list of functions in JSON format that you can invoke:\n"
_CALL_SHAPE = "[func1(params_name=params_value, params_name2=params_value2...), func2(params)]"
_USER_END_32 = (
    "\n\nShould you decide to return the function call(s),Put it in the format of "
    f"{_CALL_SHAPE}\n\nNO other text MUST be included."
)
_USER_END_33 = (
    "\n\nShould you decide to return the function call(s), put them in the format of "
    f"{_CALL_SHAPE}\n\nYou SHOULD NOT include any other text in the response."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonicFormat:
    """One of the ways in which Meta tells a Llama of functions that it calls in Python's syntax."""

    wording: Literal["documented", "later", "user-3.2", "user-3.3"] = "documented"
    end_to_end: bool = False
    """Write history as Meta's end-to-end example does: calls tagged, results in JSON."""

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSpec] = (),
        date: datetime.date | None = None,
    ) -> Prompt:
        """Render a conversation. See `render_prompt`."""
        system, rest = split_system(messages)
        functions = [tool for tool in tools if tool.kind != "code_interpreter"]
        asked = self.wording.startswith("user")
        writer = Writer(self._wire(), tools)
        listed = () if asked else functions
        body = list(self._system(system, listed, _environment(tools, date)))
        if any(text for text, _ in body):
            writer.message("system", body, part="system")
        for message in rest:
            if asked and functions and isinstance(message, UserMessage):
                writer.say(message, before=[_QUESTION], after=[self._question_end(functions)])
                functions = []
            else:
                writer.say(message)
        return writer.prompt()

    def _wire(self) -> Wire:
        if self.end_to_end:
            return Wire(calls=_double_quoted, result=_json, tagged=True)
        return Wire(calls=encode_calls, result=plain_result)

    def _system(
        self, instructions: str, functions: Sequence[ToolSpec], environment: str
    ) -> Iterator[tuple[str, str]]:
        if environment and (functions or instructions):
            environment += "\n" if environment.endswith("\n") else "\n\n"
        yield environment, "system"
        if functions and self.wording == "later":
            end = _LATER_END + ("\n" if instructions else "")
            yield _LATER + _in_one_line(_listing(functions)) + end, "tools"
        elif functions:
            end = "\n\n" if instructions else ""
            yield _DOCUMENTED + _listing(functions) + end, "tools"
        yield instructions, "system"

    def _question_end(self, functions: Sequence[ToolSpec]) -> str:
        end = _USER_END_32 if self.wording == "user-3.2" else _USER_END_33
        return _USER_LIST + _outdented(_listing(functions)) + end


def _environment(tools: Sequence[ToolSpec], date: datetime.date | None) -> str:
    if not any(tool.kind == "code_interpreter" for tool in tools):
        return ""
    lines = "Environment: ipython"
    return lines if date is None else f"{lines}\n\n{date_lines(long_date(date))}\n"


def _double_quoted(calls: Sequence[ToolCall]) -> str:
    return encode_calls(calls, quote='"')


def _json(content: JsonValue) -> str:
    return json.dumps(content, ensure_ascii=False)


def _listing(functions: Sequence[ToolSpec]) -> str:
    return json.dumps([_listed(tool) for tool in functions], indent=4, ensure_ascii=False)


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


_REQUIRED = '            "required": ['
_PROPERTIES = '            "properties": {'


def _in_one_line(listing: str) -> str:
    """The listing with each function's `required` in one line, as the later text has it."""
    lines: list[str] = []
    inside = False
    for line in listing.split("\n"):
        if inside:
            inside = line != "            ],"
            item = line.strip()
            lines[-1] += f"{item} " if item.endswith(",") and inside else item
        else:
            lines.append(line)
            inside = line == _REQUIRED
    return "\n".join(lines)


def _outdented(listing: str) -> str:
    """The listing as Meta's user message has it.

    What lies between the first and the last line of a function's properties stands four columns
    to the left there.
    """
    lines = listing.split("\n")
    start: int | None = None
    for i, line in enumerate(lines):
        if line == _PROPERTIES:
            start = i
        elif start is not None and line.rstrip(",") == "            }":
            for k in range(start + 2, i - 1):
                lines[k] = lines[k][4:]
            start = None
    return "\n".join(lines)
