"""A prompt as segments: control tokens here, text there, and no way from one to the other.

Whatever a user, a document or a tool says is held in a `Text` segment. A runtime that takes token
ids encodes each `Text` by itself with special tokens disallowed; a runtime that takes only a
string gets the lookalikes escaped. So no text, whoever wrote it, can end a turn or open a system
message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from corral.messages import ImagePart

__all__ = [
    "Prompt",
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


@dataclass(frozen=True, slots=True)
class Text:
    """A stretch of plain text. `part` says what it belongs to, such as system, tools or user."""

    text: str
    part: str = ""


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
class Prompt:
    """A rendered prompt. `images` are in the order of their `<|image|>` tokens."""

    segments: tuple[Segment, ...]
    images: tuple[ImagePart, ...] = field(default=())

    def __str__(self) -> str:
        """The prompt as a person reads it; not for sending: text and control tokens look alike."""
        return "".join(s.token if isinstance(s, Special) else s.text for s in self.segments)

    def encode(self, encoder: TextEncoder) -> list[int]:
        """The prompt's token ids, each segment encoded by itself."""
        ids: list[int] = []
        for segment in self.segments:
            if isinstance(segment, Special):
                ids.append(encoder.special_id(segment.token))
            else:
                ids += encoder.encode_text(segment.text)
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
        """Tokens by part (system, tools, user, ...), in the order in which the parts appear."""
        counts: dict[str, int] = {}
        for segment in self.segments:
            n = 1 if isinstance(segment, Special) else len(encoder.encode_text(segment.text))
            counts[segment.part] = counts.get(segment.part, 0) + n
        return counts


_LOOKALIKE = re.compile(r"<(\\*)\|(?=[A-Za-z0-9_]+\|>)")
_ESCAPED = re.compile(r"<\\(\\*)\|(?=[A-Za-z0-9_]+\|>)")


def escape_specials(text: str) -> str:
    r"""Put a backslash into all that reads as a control token: `<|eot_id|>`, `<\|eot_id|>`."""
    return _LOOKALIKE.sub(lambda m: f"<\\{m[1]}|", text)


def unescape_specials(text: str) -> str:
    """Undo `escape_specials`."""
    return _ESCAPED.sub(lambda m: f"<{m[1]}|", text)


def text_segments(texts: Iterable[str], part: str) -> Sequence[Text]:
    """The non-empty `texts` as segments of one part."""
    return [Text(text, part) for text in texts if text]
