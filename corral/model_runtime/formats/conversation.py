"""What all Llama 3 formats have in common: headers, bodies, end tokens.

A message is `<|start_header_id|>role<|end_header_id|>`, two newlines, its body, and `<|eot_id|>`;
an assistant's may end in `<|eom_id|>`, which says that it waits for a tool. A tool's result has the
role `ipython`. Source: Meta's llama-models, `models/llama3_1/prompt_format.md` and
`models/llama3/chat_format.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from corral.errors import ConfigError
from corral.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    ToolCall,
    ToolResult,
    ToolSpec,
    UserMessage,
)
from corral.model_runtime.formats.calls import encode_builtin
from corral.model_runtime.parser import parse_output
from corral.model_runtime.prompt import Prompt, Segment, Special, Text
from corral.model_runtime.runtime import Piece

__all__ = ["Wire", "Writer", "has_image", "plain_result", "split_system"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """How one format writes what has been said."""

    calls: Callable[[Sequence[ToolCall]], str]
    result: Callable[[JsonValue], str]
    tagged: bool = False
    """Whether `<|python_tag|>` stands in front of all calls, not only of code and built-ins."""
    builtins: bool = False
    """Whether the built-in tools are called as `name.call(...)`."""
    call_end: str | None = None
    """The token that ends a message of calls; by default the one that the model ended it with."""
    images: bool = False
    trim: bool = False
    """Whether white space around a message is taken off."""


class Writer:
    """Collects the segments of a prompt, message by message."""

    def __init__(self, wire: Wire, tools: Sequence[ToolSpec]) -> None:
        """Write in `wire`'s way for a model that is offered `tools`."""
        self._wire = wire
        self._tools = tools
        self._interpreter = next(
            (t.name for t in tools if t.kind == "code_interpreter"), "code_interpreter"
        )
        self._builtins = {t.name for t in tools if t.kind == "builtin" and wire.builtins}
        self._segments: list[Segment] = [Special("<|begin_of_text|>", "system")]
        self._images: list[ImagePart] = []
        self._counts: Counter[str] = Counter()

    def message(self, role: str, body: Iterable[tuple[str, str]], *, part: str) -> None:
        """Add a message whose body is (text, part of the prompt) pairs."""
        index = self._next(part)
        self._header(role, part, index)
        self._texts((text, name, index if name == part else 0) for text, name in body)
        self._segments.append(Special("<|eot_id|>", part, index))

    def say(
        self, message: Message, *, before: Sequence[str] = (), after: Sequence[str] = ()
    ) -> None:
        """Add a message of the conversation, with texts about the tools around a user's."""
        match message:
            case UserMessage():
                self._user(message, before, after)
            case AssistantMessage():
                index = self._next("assistant")
                self._header("assistant", "assistant", index)
                self._said(message, index)
            case ToolResult():
                shown = self._wire.result(message.content)
                self.message("ipython", [(shown, "result")], part="result")
            case SystemMessage():
                raise ConfigError(
                    "A system message can only be the first message of a conversation. Move it."
                )

    def prompt(self) -> Prompt:
        """The prompt, which ends where the assistant is to go on."""
        index = self._next("assistant")
        self._header("assistant", "assistant", index)
        return Prompt(tuple(self._segments), tuple(self._images))

    def _next(self, part: str) -> int:
        """The number of the next message of a kind; there is one system part and one of tools."""
        if part in ("system", "tools"):
            return 0
        self._counts[part] += 1
        return self._counts[part]

    def _header(self, role: str, part: str, index: int) -> None:
        self._segments += [
            Special("<|start_header_id|>", part, index),
            Text(role, part, index),
            Special("<|end_header_id|>", part, index),
            Text("\n\n", part, index),
        ]

    def _texts(self, texts: Iterable[tuple[str, str, int]]) -> None:
        joined = False
        for text, part, index in texts:
            if text:
                self._segments.append(Text(text, part, index, joined))
                joined = True

    def _user(self, message: UserMessage, before: Sequence[str], after: Sequence[str]) -> None:
        index = self._next("user")
        self._header("user", "user", index)
        tools_before = [(text, "tools", 0) for text in before]
        tools_after = [(text, "tools", 0) for text in after]
        content = message.content
        if isinstance(content, str):
            text = content.strip() if self._wire.trim else content
            self._texts([*tools_before, (text, "user", index), *tools_after])
        else:
            self._texts(tools_before)
            for each in content:
                if isinstance(each, ImagePart):
                    self._image(each, index)
                else:
                    self._texts([(each.text, "user", index)])
            self._texts(tools_after)
        self._segments.append(Special("<|eot_id|>", "user", index))

    def _image(self, image: ImagePart, index: int) -> None:
        if not self._wire.images:
            raise ConfigError(
                "This conversation holds an image, and this prompt format is of a model that sees "
                "none. Leave the image out, or use a vision model such as Llama 3.2 11B."
            )
        self._segments.append(Special("<|image|>", "user", index))
        self._images.append(image)

    def _said(self, message: AssistantMessage, index: int) -> None:
        """The message as the model would have written it: text, its calls, the end token."""
        wire, calls = self._wire, message.calls
        text = message.text.strip() if wire.trim else message.text
        end = "<|eom_id|>" if message.stop_reason == "end_of_message" else "<|eot_id|>"
        tagged, written = False, ""
        if message.invalid is not None:
            tagged, written = message.invalid.tagged, message.invalid.raw
        elif len(calls) == 1 and (special := self._special_call(calls[0])) is not None:
            tagged, written, end = True, special, "<|eom_id|>"
        elif calls:
            # Behind a text only the tag tells that calls begin.
            tagged, written = wire.tagged or bool(text), wire.calls(calls)
            end = wire.call_end or end
        if tagged:
            self._texts([(text, "assistant", index)])
            self._segments.append(Special("<|python_tag|>", "assistant", index))
            self._texts([(written, "assistant", index)])
        else:
            self._texts([(text + written, "assistant", index)])
        self._segments.append(Special(end, "assistant", index))

    def _special_call(self, call: ToolCall) -> str | None:
        """A call of the interpreter or of a built-in as the model writes it, if it is one."""
        if call.name == self._interpreter and call.arguments.keys() == {"code"}:
            code = call.arguments["code"]
            return code if isinstance(code, str) and self._reads_as_code(call) else None
        if call.name in self._builtins:
            return encode_builtin(call)
        return None

    def _reads_as_code(self, call: ToolCall) -> bool:
        """Whether the bare code behind the tag is taken for code, and not for another call.

        `[0]` would be refused as a list that calls nothing, and `get_weather(city='x')` run a tool.
        """
        if not any(tool.name == call.name for tool in self._tools):
            return True
        written = [
            Piece("<|python_tag|>", is_special=True),
            Piece(str(call.arguments["code"])),
            Piece("<|eom_id|>", is_special=True),
        ]
        read = parse_output(written, tools=self._tools)
        return [(c.name, c.arguments) for c in read.calls] == [(call.name, call.arguments)]


def split_system(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """The instructions, and the rest of the conversation."""
    if messages and isinstance(messages[0], SystemMessage):
        return messages[0].text, messages[1:]
    return "", messages


def has_image(messages: Sequence[Message]) -> bool:
    """Whether a user's message holds an image."""
    return any(
        isinstance(part, ImagePart)
        for message in messages
        if isinstance(message, UserMessage) and not isinstance(message.content, str)
        for part in message.content
    )


def plain_result(content: JsonValue) -> str:
    """A result as text: a string as it is, anything else as JSON."""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
