"""Llama 3.1, 3.3 and 3.2 vision: built-in tools, JSON calls, `<function=...>` calls, images.

Sources: Meta's llama-models, `models/llama3_1/prompt_format.md`, `models/llama3_3/prompt_format.md`
and `models/llama3_2/vision_prompt_format.md`. A conversation with tools begins with
`Environment: ipython`, the built-ins by name, the date; functions are told in a message of the
user's before the first one. Meta's example gives every parameter the type `object` and so loses
the types; here a schema's own types stand in their place.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from pydantic import JsonValue

from corral.errors import ConfigError
from corral.messages import Message, ToolSpec, UserMessage
from corral.model_runtime.formats.calls import encode_tags, encode_typed_json
from corral.model_runtime.formats.conversation import (
    Wire,
    Writer,
    has_image,
    plain_result,
    split_system,
)
from corral.model_runtime.formats.environment import date_lines, long_date
from corral.model_runtime.prompt import Prompt

__all__ = ["EnvironmentFormat", "refuse_tools_with_images"]

_JSON_BEFORE = """\
Answer the user's question by making use of the following functions if needed.
If none of the function can be used, please say so.
Here is a list of functions in JSON format:
"""
_JSON_AFTER = "\n\nReturn function calls in JSON format."

_TAGS_BEFORE = "You have access to the following functions:\n\n"
_TAGS_AFTER = """

Think very carefully before calling functions.
If you choose to call a function ONLY reply in the following format with no prefix or suffix:

<function=example_function_name>{"example_name": "example_value"}</function>

Reminder:
- If looking for real time information use relevant functions before falling back to brave_search
- Function calls MUST follow the specified format, start with <function= and end with </function>
- Required parameters MUST be specified
- Only call one function at a time
- Put the entire function call reply on one line"""

_PYTHON_TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentFormat:
    """Llama 3.1's prompts, with its two ways of telling functions."""

    functions: Literal["json", "tags"] = "json"
    images: bool = False

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSpec] = (),
        date: datetime.date | None = None,
    ) -> Prompt:
        """Render a conversation. See `render_prompt`."""
        if self.images:
            refuse_tools_with_images(messages, tools)
        instructions, rest = split_system(messages)
        writer = Writer(self._wire(), tools)
        system = _environment(tools, instructions, date) if tools else instructions
        if system:
            writer.message("system", [(system, "system")], part="system")
        functions = [tool for tool in tools if tool.kind == "function"]
        for message in rest:
            if functions and isinstance(message, UserMessage):
                writer.message("user", [(self._told(functions), "tools")], part="tools")
                functions = []
            writer.say(message)
        return writer.prompt()

    def _wire(self) -> Wire:
        if self.functions == "tags":
            return Wire(calls=encode_tags, result=plain_result, builtins=True, images=self.images)
        return Wire(
            calls=encode_typed_json,
            result=plain_result,
            tagged=True,
            builtins=True,
            images=self.images,
        )

    def _told(self, functions: Sequence[ToolSpec]) -> str:
        if self.functions == "tags":
            told = "\n\n".join(_used(tool) for tool in functions)
            return _TAGS_BEFORE + told + _TAGS_AFTER
        return _JSON_BEFORE + "\n".join(_listed(tool) for tool in functions) + _JSON_AFTER


def refuse_tools_with_images(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> None:
    """See that tools and images don't meet: Meta's vision models call no tools about images.

    Raises:
        ConfigError: They do.
    """
    if tools and has_image(messages):
        raise ConfigError(
            "Llama 3.2's vision models can't call tools in a conversation that holds an image. "
            "Ask about the image with an agent without tools, and hand on what it says."
        )


def _environment(tools: Sequence[ToolSpec], instructions: str, date: datetime.date | None) -> str:
    first = "Environment: ipython"
    lines = first
    builtins = [tool.name for tool in tools if tool.kind == "builtin"]
    if builtins:
        lines += f"\nTools: {', '.join(builtins)}"
    if date is not None:
        lines += ("\n" if builtins else "\n\n") + date_lines(long_date(date))
    if instructions:
        lines += f"\n\n{instructions}"
    return lines if lines == first else f"{lines}\n"


def _listed(tool: ToolSpec) -> str:
    """A function as Meta lists it: its properties as a list, `required` last and in one line."""
    schema = dict(tool.parameters)
    required = schema.pop("required", [])
    properties = schema.pop("properties", {})
    schema.pop("additionalProperties", None)
    parameters: dict[str, JsonValue] = {"type": schema.pop("type", "object")}
    if isinstance(properties, dict):
        parameters["properties"] = [{name: inner} for name, inner in properties.items()]
    function: dict[str, JsonValue] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": {**parameters, **schema},
    }
    text = json.dumps({"type": "function", "function": function}, indent=4, ensure_ascii=False)
    end = "\n        }\n    }\n}"
    listed = json.dumps(required, ensure_ascii=False)
    return f'{text.removesuffix(end)},\n            "required": {listed}{end}'


def _used(tool: ToolSpec) -> str:
    """A function as `<function=...>` models are told of it."""
    properties = tool.parameters.get("properties", {})
    required = tool.parameters.get("required", [])
    parameters: dict[str, JsonValue] = {}
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        known: Mapping[str, JsonValue] = schema if isinstance(schema, dict) else {}
        rest = {k: v for k, v in known.items() if k not in ("type", "description")}
        parameters[name] = {
            "description": known.get("description", ""),
            "param_type": _python_type(known.get("type")),
            "required": isinstance(required, list) and name in required,
            **rest,
        }
    told = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return (
        f"Use the function '{tool.name}' to '{tool.description}':\n"
        f"{json.dumps(told, ensure_ascii=False)}"
    )


def _python_type(schema_type: JsonValue) -> JsonValue:
    if isinstance(schema_type, list):
        return " | ".join(str(_python_type(each)) for each in cast("list[JsonValue]", schema_type))
    if isinstance(schema_type, str):
        return _PYTHON_TYPES.get(schema_type, schema_type)
    return "any"
