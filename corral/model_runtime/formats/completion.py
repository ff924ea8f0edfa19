"""Base models: a text, an image perhaps, and the model goes on.

Source: "Prompt format for base models" in Meta's llama-models, `models/llama3_2/`.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from corral.errors import ConfigError
from corral.messages import AssistantMessage, ImagePart, Message, ToolSpec, UserMessage
from corral.model_runtime.prompt import Prompt, Segment, Special, Text

__all__ = ["render_completion"]


def render_completion(
    messages: Sequence[Message],
    *,
    tools: Sequence[ToolSpec] = (),
    date: datetime.date | None = None,
) -> Prompt:
    """Render one text, which the users' and the assistant's messages are stretches of.

    Raises:
        ConfigError: There are tools, results or instructions, of which a base model knows nothing.
    """
    if tools:
        raise ConfigError("A base model can't call tools. Use an instruct model, or no tools.")
    segments: list[Segment] = [Special("<|begin_of_text|>", "text")]
    images: list[ImagePart] = []

    def add(text: str) -> None:
        if text:
            segments.append(Text(text, "text", 0, isinstance(segments[-1], Text)))

    for message in messages:
        match message:
            case UserMessage(content=str() as text) | AssistantMessage(text=text, calls=()):
                add(text)
            case UserMessage(content=tuple() as parts):
                for part in parts:
                    if isinstance(part, ImagePart):
                        segments.append(Special("<|image|>", "text"))
                        images.append(part)
                    else:
                        add(part.text)
            case _:
                raise ConfigError(
                    "A base model only goes on with a text: it knows no instructions and no "
                    "tools. Leave them out, or use an instruct model."
                )
    return Prompt(tuple(segments), tuple(images))
