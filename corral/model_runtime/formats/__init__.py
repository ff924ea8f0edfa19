"""Prompt formats: messages and tools in, a `Prompt` out.

Rendering is pure, and only ever grows at its end.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from corral.errors import ConfigError
from corral.messages import Message, ToolSpec
from corral.model_runtime.formats import llama32
from corral.model_runtime.prompt import Prompt

__all__ = ["FORMATS", "render_prompt"]

FORMATS = {"llama3.2": llama32.render}
"""Format name -> renderer."""


def render_prompt(
    messages: Sequence[Message],
    *,
    tools: Sequence[ToolSpec] = (),
    format: str = "llama3.2",
    date: datetime.date | None = None,
) -> Prompt:
    """Render a conversation, ending where the assistant is to go on.

    Args:
        messages: The conversation, oldest first; a system message only in front.
        tools: What the model is offered.
        format: A key of `FORMATS`.
        date: The date that the model is told, in formats that tell one.

    Raises:
        ConfigError: No such format, or messages that the format has no place for.
    """
    try:
        renderer = FORMATS[format]
    except KeyError:
        known = ", ".join(sorted(FORMATS))
        raise ConfigError(
            f"No prompt format is called {format!r}. Known formats: {known}."
        ) from None
    return renderer(messages, tools=tools, date=date)
