"""A prompt as segments: control tokens here, text there, and no way from one to the other.

Whatever a user, a document or a tool says is held in a `Text` segment. A runtime that takes token
ids encodes each `Text` by itself with special tokens disallowed; a runtime that takes only a
string gets the lookalikes escaped. So no text, whoever wrote it, can end a turn or open a system
message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from corral.messages import ImagePart, Message, ToolSpec

__all__ = [
    "Prompt",
    "PromptSource",
    "Segment",
    "Special",
    "Text",
    "TextEncoder",
    "escape_specials",
    "unescape_specials",
]


@dataclass(frozen=True, slots=True)
class Special:
    """A control token, by its name in the model's vocabulary, such as `<|eot_id|>`."""

    token: str
    part: str = ""
    index: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Text:
    """A stretch of plain text.

    `part` says what it belongs to, such as system, tools or user, and `index` to which message of
    that kind, from 1. `joined` text is encoded together with the text before it, as one string:
    two parts of one message's body, which a model's own tokenizer saw as one.
    """

    text: str
    part: str = ""
    index: int = field(default=0, compare=False)
    joined: bool = field(default=False, compare=False)


Segment: TypeAlias = Special | Text


class TextEncoder(Protocol):
    """What a prompt needs of a tokenizer."""

    def special_id(self, token: str) -> int:
        """The id of a control token; KeyError if the vocabulary has none of that name."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """The ids of `text`, none of which is a control token's, whatever the text says."""
        ...


@dataclass(frozen=True, slots=True)
class PromptSource:
    """What a prompt was rendered from, for servers that insist on rendering by themselves."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt. `images` are in the order of their `<|image|>` tokens."""

    segments: tuple[Segment, ...]
    images: tuple[ImagePart, ...] = field(default=())
    source: PromptSource | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        """The prompt as a person reads it; not for sending: text and control tokens look alike."""
        return "".join(s.token if isinstance(s, Special) else s.text for s in self.segments)

    def encode(self, encoder: TextEncoder) -> list[int]:
        """The prompt's token ids, each segment encoded by itself (see `Text.joined`)."""
        ids: list[int] = []
        for run in self._runs():
            if isinstance(run, Special):
                ids.append(encoder.special_id(run.token))
            else:
                ids += encoder.encode_text("".join(text.text for text in run))
        return ids

    def escaped(self, *, bos: bool = True) -> str:
        """The prompt as one string in which only real control tokens look like control tokens.

        For servers that take no token ids. Without `bos` the leading `<|begin_of_text|>` is left
        out, for servers that add their own (Ollama in raw mode).
        """
        out: list[str] = []
        # Neighbouring texts are escaped as one, or a lookalike could span two of them.
        run: list[str] = []
        for segment in self.segments:
            if isinstance(segment, Text):
                run.append(segment.text)
                continue
            out.append(escape_specials("".join(run)))
            run.clear()
            if bos or segment.token != "<|begin_of_text|>":
                out.append(segment.token)
        out.append(escape_specials("".join(run)))
        return "".join(out)

    def tokens(self, encoder: TextEncoder) -> dict[str, int]:
        """Tokens by part (system, tools, user 1, assistant 1, ...), in order of appearance."""
        counts: dict[str, int] = {}

        def add(segment: Segment, n: int) -> None:
            name = f"{segment.part} {segment.index}" if segment.index else segment.part
            counts[name] = counts.get(name, 0) + n

        for run in self._runs():
            if isinstance(run, Special):
                add(run, 1)
                continue
            before, text = 0, ""
            for each in run:
                text += each.text
                until = len(encoder.encode_text(text))
                add(each, until - before)
                before = until
        return counts

    def _runs(self) -> Iterator[Special | list[Text]]:
        """Control tokens, and texts with those that are joined to them."""
        run: list[Text] = []
        for segment in self.segments:
            if isinstance(segment, Text) and segment.joined:
                run.append(segment)
                continue
            if run:
                yield run
            run = []
            if isinstance(segment, Special):
                yield segment
            else:
                run = [segment]
        if run:
            yield run


_LOOKALIKE = re.compile(r"<(\\*)\|(?=[A-Za-z0-9_]+\|>)")
_ESCAPED = re.compile(r"<\\(\\*)\|(?=[A-Za-z0-9_]+\|>)")


def escape_specials(text: str) -> str:
    r"""Put a backslash into all that reads as a control token: `<|eot_id|>`, `<\|eot_id|>`."""
    return _LOOKALIKE.sub(lambda m: f"<\\{m[1]}|", text)


def unescape_specials(text: str) -> str:
    """Undo `escape_specials`."""
    return _ESCAPED.sub(lambda m: f"<{m[1]}|", text)
