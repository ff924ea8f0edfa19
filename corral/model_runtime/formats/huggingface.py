"""Prompts as Hugging Face's chat templates of Llama 3.1, 3.2 and 3.2 vision render them.

For models that were tuned on those templates. They equal the templates byte for byte where those
work. Where they don't, the obvious right thing happens instead: several calls of one message are
joined by `; ` (the templates raise), the text in front of a call is kept (they drop it), quotes in
a built-in's query are escaped (they aren't there), an empty list of tools is no tools, and a
conversation of tools without a user's message, or of tools with an image, is a clear error.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from corral.errors import ConfigError
from corral.messages import Message, ToolSpec, UserMessage
from corral.model_runtime.formats.conversation import Wire, Writer, has_image, split_system
from corral.model_runtime.formats.environment import date_lines, short_date
from corral.model_runtime.formats.llama31 import refuse_tools_with_images
from corral.model_runtime.formats.pythonic import encode_json
from corral.model_runtime.prompt import Prompt

__all__ = ["HuggingFaceFormat"]

_SHAPE = (
    'Respond in the format {"name": function name, "parameters": dictionary of argument name and '
    "its value}.Do not use variables.\n\n"
)
_IN_SYSTEM = (
    "You have access to the following functions. To call a function, please respond with JSON for "
    f"a function call.{_SHAPE}"
)
_IN_USER = (
    "Given the following functions, please respond with a JSON for a function call with its "
    f"proper arguments that best answers the given prompt.\n\n{_SHAPE}"
)
_DEFAULT_DATE = "26 Jul 2024"  # the templates' own, for when they are told none


@dataclass(frozen=True, slots=True, kw_only=True)
class HuggingFaceFormat:
    """One of the templates: `3.1` knows built-ins, `3.2` is text only, `vision` sees images."""

    template: Literal["3.1", "3.2", "vision"] = "3.2"
    tools_in_user_message: bool = True

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSpec] = (),
        date: datetime.date | None = None,
    ) -> Prompt:
        """Render a conversation. See `render_prompt`."""
        instructions, rest = split_system(messages)
        refuse_tools_with_images(messages, tools)
        builtins = [t.name for t in tools if t.kind == "builtin" and self.template == "3.1"]
        functions = [t for t in tools if t.kind != "code_interpreter" and t.name not in builtins]
        writer = Writer(self._wire(bool(builtins)), tools)
        if instructions or self.template != "vision" or not has_image(rest):
            environment = self._environment(bool(tools), builtins, date)
            listed = () if self.tools_in_user_message else functions
            body = [
                (environment, "system"),
                (_IN_SYSTEM + _listing(listed) if listed else "", "tools"),
                (instructions.strip(), "system"),
            ]
            writer.message("system", body, part="system")
        waiting = functions if self.tools_in_user_message else []
        if waiting and not any(isinstance(message, UserMessage) for message in rest):
            raise ConfigError(
                "This format tells of tools in the first message of the user, and there is none. "
                "Add one, or use the format hf-json-system."
            )
        for message in rest:
            if waiting and isinstance(message, UserMessage):
                writer.say(message, before=[_IN_USER + _listing(waiting)])
                waiting = []
            else:
                writer.say(message)
        return writer.prompt()

    def _wire(self, builtins: bool) -> Wire:
        return Wire(
            calls=encode_json,
            result=_result,
            builtins=builtins,
            call_end="<|eom_id|>" if builtins else "<|eot_id|>",
            images=self.template == "vision",
            trim=True,
        )

    def _environment(self, tools: bool, builtins: Sequence[str], date: datetime.date | None) -> str:
        lines = "Environment: ipython\n" if tools else ""
        if builtins:
            lines += f"Tools: {', '.join(builtins)}\n\n"
        today = _DEFAULT_DATE if date is None else short_date(date)
        return f"{lines}{date_lines(today)}\n\n"


def _listing(functions: Sequence[ToolSpec]) -> str:
    return "".join(
        json.dumps(
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                },
            },
            indent=4,
            ensure_ascii=False,
        )
        + "\n\n"
        for tool in functions
    )


def _result(content: JsonValue) -> str:
    """Strings, lists and objects as JSON; the rest as Python prints it."""
    if isinstance(content, (str, list, dict)):
        return json.dumps(content, ensure_ascii=False)
    return str(content)
