"""What is said in a conversation, as plain data.

Four messages (`SystemMessage`, `UserMessage`, `AssistantMessage`, `ToolResult`) and what they are
made of. They are Corral's own: a prompt format renders them into a model's wire form at the moment
of sending, and nothing here knows how. All are immutable and survive a round trip through JSON
unchanged.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

__all__ = [
    "AssistantMessage",
    "Attachment",
    "ImagePart",
    "InvalidCall",
    "Message",
    "MessageAdapter",
    "StopReason",
    "SystemMessage",
    "TextPart",
    "ToolCall",
    "ToolResult",
    "ToolSpec",
    "UserMessage",
]

StopReason: TypeAlias = Literal[
    "end_of_turn", "end_of_message", "max_tokens", "cancelled", "unknown"
]
"""Why a model stopped: its own end token (`<|eot_id|>`, `<|eom_id|>`), the token limit, a cancel,
or not said.
"""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextPart(_Frozen):
    """A stretch of text in a user's message."""

    kind: Literal["text"] = "text"
    text: str


class ImagePart(_Frozen):
    """An image in a user's message, as the bytes of a PNG, JPEG or WebP file (base64 in JSON)."""

    kind: Literal["image"] = "image"
    media_type: str
    data: Base64Bytes


Part: TypeAlias = Annotated[TextPart | ImagePart, Field(discriminator="kind")]


class SystemMessage(_Frozen):
    """The agent's instructions. At most one, and always the first message."""

    role: Literal["system"] = "system"
    text: str


class UserMessage(_Frozen):
    """What the user said: a string, or text and images in order."""

    role: Literal["user"] = "user"
    content: str | tuple[Part, ...]

    @property
    def text(self) -> str:
        """The message's text alone, its text parts joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


class ToolCall(_Frozen):
    """One call that the model asked for.

    `arguments` is a JSON object; `id` is unique in its session.
    """

    id: str
    name: str
    arguments: dict[str, JsonValue]


class InvalidCall(_Frozen):
    """What the model wrote where a call should stand, when it can't be read as one.

    `raw` is the model's own text, kept so that the model can be shown what it wrote; `code` is one
    of the parser's error codes and `message` says in words what is wrong. A `ToolResult` with this
    `id` answers it, like any call.
    """

    id: str
    raw: str
    code: str
    message: str
    tagged: bool = False
    """Whether the text came behind a `<|python_tag|>` token."""
    position: int | None = None
    """Where in `raw`, counted in characters, the fault was met; None if it has no one place."""


class AssistantMessage(_Frozen):
    """What the model said: text, calls, or one unreadable call; and why it stopped."""

    role: Literal["assistant"] = "assistant"
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    invalid: InvalidCall | None = None
    stop_reason: StopReason = "end_of_turn"
    warnings: tuple[str, ...] = ()
    """Codes of what the parser had to mend to read the calls."""

    @property
    def call_ids(self) -> tuple[str, ...]:
        """The ids that a `ToolResult` must answer, in order."""
        ids = tuple(call.id for call in self.calls)
        return (*ids, self.invalid.id) if self.invalid else ids


class ToolResult(_Frozen):
    """What came of one call.

    `content` is any JSON value; formats show strings as they are and the rest as JSON.
    """

    role: Literal["tool"] = "tool"
    call_id: str
    name: str
    content: JsonValue
    is_error: bool = False


class Attachment(_Frozen):
    """A file that a tool made, such as a plot: its bare name, its type, its bytes (base64 in JSON).

    The name is one path component without separators, safe to save under. Attachments go to the
    caller with the call's result; the model is told their names only.
    """

    name: str
    media_type: str
    data: Base64Bytes


Message: TypeAlias = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolResult, Field(discriminator="role")
]

MessageAdapter: TypeAdapter[Message] = TypeAdapter(Message)
"""Reads and writes any message as JSON."""


class ToolSpec(_Frozen):
    """A tool as the model is shown it: a name, what it does, and its arguments' JSON Schema.

    `kind` tells a function, which is listed in the prompt with its schema, from what a Llama knows
    by training: the `code_interpreter`, called with bare Python behind `<|python_tag|>`, and the
    `builtin` tools of Llama 3.1 (`brave_search`, `wolfram_alpha`), announced by name alone. Formats
    of models that know no built-ins list those as functions.
    """

    name: str
    description: str
    parameters: dict[str, JsonValue] = Field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    kind: Literal["function", "code_interpreter", "builtin"] = "function"
