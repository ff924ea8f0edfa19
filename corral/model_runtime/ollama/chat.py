"""Models of other families than Llama 3, through Ollama's own `/api/chat`.

The server renders the prompt there, with the template that came with the model, and reads calls by
its own rules.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pydantic import JsonValue

from corral.model_runtime.chat_form import chat_messages, chat_tools, source_of, written_calls
from corral.model_runtime.prompt import Prompt
from corral.model_runtime.runtime import Piece

__all__ = ["calls_piece", "chat_body", "warn"]


def warn(name: str) -> None:
    """Say what a model loses by going through the server's chat."""
    logging.getLogger("corral").warning(
        "%s is no Llama 3, so its prompt is rendered by Ollama and not by Corral: what the model "
        "is shown can't be told to the byte, tools' schemas are simplified on the way, and a model "
        "whose template drops the tools after a result can't make a second call.",
        name,
    )


def chat_body(prompt: Prompt) -> dict[str, object]:
    """The messages and tools that a prompt was rendered from, as `/api/chat` takes them.

    Raises:
        ConfigError: The prompt doesn't say what it was rendered from.
    """
    source = source_of(prompt)
    body: dict[str, object] = {"messages": chat_messages(source, style="ollama")}
    if source.tools:
        body["tools"] = chat_tools(source)
    return body


def calls_piece(calls: Sequence[JsonValue]) -> Piece:
    """The calls of an answer, as a model would write them."""
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    return Piece(
        written_calls(
            (str(function.get("name", "")), function.get("arguments"))
            for function in functions
            if isinstance(function, dict)
        )
    )
