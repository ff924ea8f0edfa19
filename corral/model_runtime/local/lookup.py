"""Prompt lookup: guess the next tokens where the output repeats what was there before.

An answer that copies a tool's result says the same tokens in the same order. When the last few
tokens stood somewhere earlier, what followed them then is guessed; one forward pass checks all
guesses. A right guess saves a pass, a wrong one costs little, and the output is the same either
way, since each token is drawn from its own logits. Source: Apoorv Saxena's prompt lookup decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Lookup"]

_CONTEXT = 3
"""So many tokens have to stand there again."""
_FEWEST, _MOST = 2, 7
_LONGEST_PAUSE = 64


class Lookup:
    """Guesses for one output. Learns from how it fares how much to guess, and when to stop."""

    def __init__(self, prompt: Sequence[int]) -> None:
        """Begin behind a prompt."""
        self._tokens = list(prompt)
        self._seen: dict[tuple[int, ...], int] = {}
        self._indexed = _CONTEXT
        self._size = _FEWEST + 1
        self._pause = 0
        self._missed = 0

    def add(self, tokens: Sequence[int]) -> None:
        """Take tokens that were written."""
        self._tokens += tokens
        self._pause = max(0, self._pause - len(tokens))

    def guess(self, room: int) -> list[int]:
        """What may come next, at most `room` tokens; nothing if that wouldn't pay."""
        tokens = self._tokens
        if self._pause or room < _FEWEST or len(tokens) < _CONTEXT + 1:
            return []
        for end in range(self._indexed, len(tokens)):
            self._seen[tuple(tokens[end - _CONTEXT : end])] = end
        self._indexed = len(tokens)
        at = self._seen.get(tuple(tokens[-_CONTEXT:]))
        return [] if at is None else tokens[at : at + min(self._size, room)]

    def fared(self, guessed: int, right: int) -> None:
        """Learn how many of the tokens guessed were right."""
        if right == guessed:
            self._size = min(_MOST, self._size + 2)
            self._missed = 0
        elif right == 0:
            self._size = _FEWEST
            self._missed += 1
            self._pause = min(_LONGEST_PAUSE, 4**self._missed)
        else:
            self._size = max(_FEWEST, right + 1)
            self._missed = 0
