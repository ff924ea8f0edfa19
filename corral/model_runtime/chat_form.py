"""Conversations in the form of chat APIs, for servers that insist on rendering prompts themselves.

Two dialects of one idea: OpenAI's, where a call's arguments are a string of JSON and images are
parts of the content, and Ollama's, where arguments are an object and images stand beside it.
Calls that come back as data are written out as JSON, which the parser reads like any model's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias, cast

from pydantic import JsonValue

from corral.errors import ConfigError
from corral.messages import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    ToolCall,
    ToolResult,
    UserMessage,
)
from corral.model_runtime.prompt import Prompt, PromptSource

__all__ = ["ChatStyle", "chat_messages", "chat_tools", "source_of", "written_calls"]

ChatStyle: TypeAlias = Literal["openai", "ollama"]


def source_of(prompt: Prompt) -> PromptSource:
    """What a prompt was rendered from.

    Raises:
        ConfigError: It doesn't say, as a guard's prompt doesn't.
    """
    if prompt.source is None:
        raise ConfigError(
            "This model is reached through a chat API, which takes a conversation and not a "
            "prompt such as this one. Use a server with a completions API."
        )
    return prompt.source


def chat_messages(source: PromptSource, *, style: ChatStyle) -> list[JsonValue]:
    """A conversation as a chat API takes it."""
    return [_message(message, style) for message in source.messages]


def chat_tools(source: PromptSource) -> list[JsonValue]:
    """The offered tools as a chat API takes them; both dialects agree here."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            },
        }
        for tool in source.tools
    ]


def written_calls(calls: Iterable[tuple[str, JsonValue]]) -> str:
    """Calls as a Llama writes them in JSON. Arguments are an object, or a string that holds one.

    A string that holds none is put in as it is, so that the parser says what is wrong with it.
    """
    return "; ".join(
        f'{{"name": {json.dumps(name)}, "parameters": {_arguments(arguments)}}}'
        for name, arguments in calls
    )


def _arguments(arguments: JsonValue) -> str:
    if isinstance(arguments, str):
        try:
            return json.dumps(cast("JsonValue", json.loads(arguments or "{}")), ensure_ascii=False)
        except (ValueError, RecursionError):
            return arguments
    return json.dumps(arguments if arguments is not None else {}, ensure_ascii=False)


def _message(message: Message, style: ChatStyle) -> dict[str, JsonValue]:
    match message:
        case SystemMessage():
            return {"role": "system", "content": message.text}
        case UserMessage():
            return {"role": "user", **_content(message, style)}
        case AssistantMessage():
            return _assistant(message, style)
        case ToolResult():
            shown = message.content
            content = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
            result: dict[str, JsonValue] = {"role": "tool", "content": content}
            result["tool_call_id"] = message.call_id
            if style == "ollama":
                result["tool_name"] = message.name
            return result


def _content(message: UserMessage, style: ChatStyle) -> dict[str, JsonValue]:
    parts = () if isinstance(message.content, str) else message.content
    images = [part for part in parts if isinstance(part, ImagePart)]
    if not images:
        return {"content": message.text}
    if style == "ollama":
        return {"content": message.text, "images": [_base64(image) for image in images]}
    content: list[JsonValue] = []
    for part in parts:
        if isinstance(part, ImagePart):
            url = f"data:{part.media_type};base64,{_base64(part)}"
            content.append({"type": "image_url", "image_url": {"url": url}})
        else:
            content.append({"type": "text", "text": part.text})
    return {"content": content}


def _base64(image: ImagePart) -> str:
    return base64.b64encode(image.data).decode()


def _assistant(message: AssistantMessage, style: ChatStyle) -> dict[str, JsonValue]:
    text = message.text
    calls: Sequence[ToolCall] = message.calls
    if message.invalid is not None:
        # There is no form for a call that can't be read, and its result needs one to answer.
        calls = (ToolCall(id=message.invalid.id, name="unreadable_call", arguments={}),)
        text = f"{text}\n{message.invalid.raw}".strip()
    said: dict[str, JsonValue] = {"role": "assistant", "content": text}
    if calls:
        said["tool_calls"] = [_call(call, style) for call in calls]
    return said


def _call(call: ToolCall, style: ChatStyle) -> JsonValue:
    if style == "ollama":
        return {"id": call.id, "function": {"name": call.name, "arguments": call.arguments}}
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
