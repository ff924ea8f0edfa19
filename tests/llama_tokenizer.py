"""Llama 3's own tokenizer, as Meta's `llama-models` wheel carries it, seen as a `TextEncoder`."""

from __future__ import annotations

from functools import cache

from llama_models.llama3.tokenizer import Tokenizer


class Llama3Tokenizer:
    def __init__(self) -> None:
        self.reference = Tokenizer.get_instance()

    def special_id(self, token: str) -> int:
        return self.reference.special_tokens[token]

    def encode_text(self, text: str) -> list[int]:
        return self.reference.model.encode(text, allowed_special=set(), disallowed_special=())

    @property
    def control_ids(self) -> set[int]:
        return set(self.reference.special_tokens.values())


@cache
def llama3_tokenizer() -> Llama3Tokenizer:
    return Llama3Tokenizer()
