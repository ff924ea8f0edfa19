"""Makes the parser's pieces of what some servers give instead: token ids, or one long string."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from corral.model_runtime.parser.intake import Intake
from corral.model_runtime.runtime import Piece

__all__ = ["CONTROL_TOKENS", "TokenTable", "pieces_from_ids", "pieces_from_text"]

CONTROL_TOKENS = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|begin_of_text|>",
    "<|end_header_id|>",
    "<|python_tag|>",
)
"""The control tokens that mean something in a model's output."""


class TokenTable(Protocol):
    """What is asked of a tokenizer: `corral.model_runtime.tokenizer.LlamaTokenizer` answers it."""

    def special_name(self, token_id: int) -> str | None:
        """The name of a control token, such as `<|eot_id|>`; None for a piece of text."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a text token stands for."""
        ...


def pieces_from_ids(ids: Iterable[int], tokenizer: TokenTable) -> list[Piece]:
    """Token ids as pieces: what is a control token and what only spells one is never in doubt.

    Args:
        ids: The ids of a model's output, in order.
        tokenizer: Knows what they stand for.
    """
    pieces: list[Piece] = []
    intake = Intake()
    for token_id in ids:
        name = tokenizer.special_name(token_id)
        text = intake.data(tokenizer.token_bytes(token_id)) if name is None else intake.flush()
        if text:
            pieces.append(Piece(text))
        if name is not None:
            pieces.append(Piece(name, is_special=True))
    left = intake.flush()
    return [*pieces, Piece(left)] if left else pieces


def pieces_from_text(text: str) -> list[Piece]:
    """Cut a string into text and control tokens, for servers that give only strings.

    Use it only where control tokens are known to be left in the string: from then on, the model's
    own spelling of a token's name can't be told from the token.
    """
    pieces: list[Piece] = []
    start = pos = 0
    while (pos := text.find("<|", pos)) >= 0:
        token = next((token for token in CONTROL_TOKENS if text.startswith(token, pos)), None)
        if token is None:
            pos += 2
            continue
        if pos > start:
            pieces.append(Piece(text[start:pos]))
        pieces.append(Piece(token, is_special=True))
        start = pos = pos + len(token)
    if start < len(text):
        pieces.append(Piece(text[start:]))
    return pieces
