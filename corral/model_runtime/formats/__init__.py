"""Prompt formats: messages and tools in, a `Prompt` out.

Rendering is pure, and only ever grows at its end. `docs/prompt-formats.md` says which format is
for which model, with examples.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, Literal, Protocol, TypeAlias

from corral.errors import ConfigError
from corral.messages import Message, ToolSpec
from corral.model_runtime.formats.completion import render_completion
from corral.model_runtime.formats.huggingface import HuggingFaceFormat
from corral.model_runtime.formats.llama31 import EnvironmentFormat
from corral.model_runtime.formats.llama32 import PythonicFormat
from corral.model_runtime.prompt import Prompt, PromptSource

__all__ = ["FORMATS", "CallSyntax", "PromptFormat", "find_format", "render_prompt"]

CallSyntax: TypeAlias = Literal["pythonic", "json", "tags", "none"]
"""How a model is told to write its calls. Whatever it writes, the parser reads all of them."""


class _Render(Protocol):
    def __call__(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[ToolSpec] = (),
        date: datetime.date | None = None,
    ) -> Prompt: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFormat:
    """A way to render a conversation."""

    name: str
    about: str
    render: _Render
    calls: CallSyntax = "pythonic"
    images: bool = False


FORMATS: Final[dict[str, PromptFormat]] = {
    each.name: each
    for each in (
        PromptFormat(
            name="llama3.2",
            about="Llama 3.2 1B and 3B as Meta documents them: pythonic calls, tools in the "
            "system message, code interpreter.",
            render=PythonicFormat().render,
        ),
        PromptFormat(
            name="llama3.2-later",
            about="The same with Meta's later system text, under which the model calls less when "
            "no call is needed.",
            render=PythonicFormat(wording="later").render,
        ),
        PromptFormat(
            name="llama3.2-user",
            about="Pythonic calls, tools in the first message of the user, in Llama 3.2's wording.",
            render=PythonicFormat(wording="user-3.2").render,
        ),
        PromptFormat(
            name="llama3.3-user",
            about="The same in Llama 3.3's wording.",
            render=PythonicFormat(wording="user-3.3").render,
        ),
        PromptFormat(
            name="llama3.2-e2e",
            about="Like llama3.2, its history written as in Meta's end-to-end example: calls "
            "behind a tag and in double quotes, results in JSON.",
            render=PythonicFormat(end_to_end=True).render,
        ),
        PromptFormat(
            name="llama3.1-json",
            about="Llama 3.1 and 3.3: built-in tools, code interpreter, functions called in JSON.",
            render=EnvironmentFormat().render,
            calls="json",
        ),
        PromptFormat(
            name="function-tag",
            about="Llama 3.1 and 3.3: the same with calls as <function=name>{...}</function>.",
            render=EnvironmentFormat(functions="tags").render,
            calls="tags",
        ),
        PromptFormat(
            name="vision",
            about="Llama 3.2 11B and 90B: images; or, without one, llama3.1-json.",
            render=EnvironmentFormat(images=True).render,
            calls="json",
            images=True,
        ),
        PromptFormat(
            name="hf-json",
            about="Hugging Face's template of Llama 3.2 text: JSON calls, tools in the first "
            "message of the user.",
            render=HuggingFaceFormat().render,
            calls="json",
        ),
        PromptFormat(
            name="hf-json-system",
            about="The same with tools in the system message.",
            render=HuggingFaceFormat(tools_in_user_message=False).render,
            calls="json",
        ),
        PromptFormat(
            name="hf-json-3.1",
            about="Hugging Face's template of Llama 3.1, which knows the built-in tools.",
            render=HuggingFaceFormat(template="3.1").render,
            calls="json",
        ),
        PromptFormat(
            name="hf-vision",
            about="Hugging Face's template of Llama 3.2 vision.",
            render=HuggingFaceFormat(template="vision").render,
            calls="json",
            images=True,
        ),
        PromptFormat(
            name="completion",
            about="Base models, which go on with a text.",
            render=render_completion,
            calls="none",
            images=True,
        ),
    )
}
"""Format name -> format."""


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
    prompt = find_format(format).render(messages, tools=tools, date=date)
    return dataclasses.replace(prompt, source=PromptSource(tuple(messages), tuple(tools)))


def find_format(name: str) -> PromptFormat:
    """The format of that name.

    Raises:
        ConfigError: There is none; the message names those that there are.
    """
    try:
        return FORMATS[name]
    except KeyError:
        near = get_close_matches(name, FORMATS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"No prompt format is called {name!r}.{hint} Known formats: {', '.join(FORMATS)}."
        ) from None
