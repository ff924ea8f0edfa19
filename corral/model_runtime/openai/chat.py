"""`/v1/chat/completions`, for hosts that have nothing else: the server renders the prompt."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from corral.model_runtime.chat_form import chat_messages, chat_tools, source_of, written_calls
from corral.model_runtime.openai.dialect import (
    Asked,
    Heard,
    first_choice,
    number,
    sampling_fields,
    stop_reason,
)
from corral.model_runtime.openai.servers import ServerKind

__all__ = ["Chat"]


class Chat:
    """One generation over `/v1/chat/completions`. Fulfils `Dialect`.

    Calls come in pieces, by index; they are told as text once the server says that it is done.
    """

    def __init__(self, asked: Asked, kind: ServerKind) -> None:
        """Ask a server of this kind.

        Raises:
            ConfigError: The prompt doesn't say what it was rendered from.
        """
        self._asked = asked
        self._kind = kind
        self._source = source_of(asked.prompt)
        self._calls: dict[int, tuple[str, str]] = {}
        self._spoke = False

    def path(self) -> str:
        """The endpoint."""
        return "chat/completions"

    def body(self) -> dict[str, JsonValue]:
        """The request."""
        asked = self._asked
        body = sampling_fields(asked.sampling, self._kind)
        body |= {
            "model": asked.model,
            "messages": chat_messages(self._source, style="openai"),
            "max_tokens": asked.sampling.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._source.tools:
            body["tools"] = chat_tools(self._source)
        if asked.schema is not None:
            schema: JsonValue = {"name": "answer", "schema": dict(asked.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def hear(self, event: Mapping[str, JsonValue]) -> Heard:
        """Read one event."""
        usage = event.get("usage")
        choice = first_choice(event)
        text, stop = "", None
        if choice is not None:
            delta = choice.get("delta")
            if isinstance(delta, dict):
                text = self._text(delta)
            if finish := choice.get("finish_reason"):
                stop = stop_reason(finish, None, {})
                text += self._written()
        return Heard(
            text=text,
            stop=stop,
            prompt_tokens=number(usage, "prompt_tokens"),
            output_tokens=number(usage, "completion_tokens"),
        )

    def _text(self, delta: Mapping[str, JsonValue]) -> str:
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, dict):
                self._take(call)
        text = delta.get("content")
        if not isinstance(text, str):
            return ""
        self._spoke = self._spoke or bool(text.strip())
        return text

    def _take(self, call: Mapping[str, JsonValue]) -> None:
        index = number(dict(call), "index")
        at = index if index is not None else len(self._calls)
        function = call.get("function")
        if isinstance(function, dict):
            name, arguments = self._calls.get(at, ("", ""))
            name += str(function.get("name") or "")
            arguments += str(function.get("arguments") or "")
            self._calls[at] = (name, arguments)

    def _written(self) -> str:
        """The calls as text, behind what was said before them."""
        if not self._calls:
            return ""
        calls = [self._calls.pop(at) for at in sorted(self._calls)]
        return ("\n" if self._spoke else "") + written_calls(calls)
