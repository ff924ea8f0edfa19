"""Text to token ids that are no control tokens, and token ids to text of whole characters.

Works on any byte-level BPE tokenizer with Llama 3's control tokens: Llama's own and cria's.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from corral.errors import RuntimeUnavailable
from corral.messages import StopReason
from corral.model_runtime.runtime import Piece

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Detokenizer", "LlamaTokenizer"]

_NEEDED = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)

_STOPS: dict[str, StopReason] = {
    "<|eot_id|>": "end_of_turn",
    "<|eom_id|>": "end_of_message",
    "<|end_of_text|>": "end_of_turn",
}


class LlamaTokenizer:
    """A `tokenizers.Tokenizer` seen the way Corral needs it. Fulfils `TextEncoder`."""

    def __init__(self, tokenizer: Tokenizer, *, source: str) -> None:
        """Wrap a tokenizer, which this object then owns.

        Raises:
            RuntimeUnavailable: The vocabulary lacks a control token of Llama 3's prompt format.
                `source` names it.
        """
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # "<|eot_id|>" in a text is seven characters
        self._names: dict[int, str] = {
            i: token.content
            for i, token in tokenizer.get_added_tokens_decoder().items()
            if token.special
        }
        self._ids = {name: i for i, name in self._names.items()}
        missing = [name for name in _NEEDED if name not in self._ids]
        if missing:
            raise RuntimeUnavailable(
                f"The tokenizer of {source!r} has no {missing[0]!r}, so it doesn't speak Llama "
                "3's prompt format. "
                "Use a Llama 3.1, 3.2 or 3.3 instruct model."
            )
        self.stops: dict[int, StopReason] = {
            self._ids[name]: reason for name, reason in _STOPS.items() if name in self._ids
        }
        """Ids at which a generation ends, and what ending there means."""

    def special_id(self, token: str) -> int:
        """The id of a control token; KeyError if the vocabulary has none of that name."""
        return self._ids[token]

    def definition(self) -> str:
        """The whole tokenizer, as the text of a `tokenizer.json`."""
        return self._tokenizer.to_str()

    def special_name(self, token_id: int) -> str | None:
        """The name of a control token, or None where the id is a piece of text."""
        return self._names.get(token_id)

    def encode_text(self, text: str) -> list[int]:
        """The ids of a text. Never a control token's, whatever the text says.

        Raises:
            RuntimeUnavailable: The tokenizer can't keep that promise. Nothing is sent then.
        """
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not self._names.keys().isdisjoint(ids):
            raise RuntimeUnavailable(
                "This tokenizer turns plain text into control tokens, so a user could forge them. "
                "Use the tokenizer.json that the model was published with."
            )
        return ids

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a text token stands for; none for ids outside the vocabulary."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        table = _byte_of_char()
        return b"".join(
            bytes((table[c],)) if c in table else c.encode("utf-8", "replace") for c in token
        )


class Detokenizer:
    """Token ids in, pieces of whole characters out: bytes wait until they make one."""

    def __init__(self, tokenizer: LlamaTokenizer) -> None:
        """Start a stream."""
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token_id: int) -> Iterable[Piece]:
        """The pieces that this token completes, if any."""
        name = self._tokenizer.special_name(token_id)
        if name is None:
            text = self._decoder.decode(self._tokenizer.token_bytes(token_id))
            return (Piece(text),) if text else ()
        return (*self.flush(), Piece(name, is_special=True))

    def flush(self) -> Iterable[Piece]:
        """What is left of a character that never came whole, as U+FFFD."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return (Piece(text),) if text else ()


@cache
def _byte_of_char() -> dict[str, int]:
    """Byte-level BPE's alphabet (GPT-2): printable bytes as they are, the rest from U+0100 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(0x100) if b not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
