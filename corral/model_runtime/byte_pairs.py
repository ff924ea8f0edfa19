"""A server's own vocabulary, read from what it says of a model, to count tokens as it counts them.

Byte-level BPE in plain Python: splitting a text into words by a fixed pattern, then merging pairs
within each word by rank. It stands here so that a prompt can be measured exactly where no
tokenizer library and no tokenizer file is, which is the case of everybody whose models live in
Ollama. The patterns are those of Llama 3 (`tokenizer.ggml.pre` is `llama-bpe`) and of SmolLM
(`smollm`), as their published `tokenizer.json` files have them.

Python's `re` knows no classes of Unicode characters, so a text is first translated into a string
of the same length that holds the class of each character, and the patterns run on that.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from corral.model_runtime.prompt import Prompt, Special, escape_specials
from corral.model_runtime.tokenizer import (
    _byte_of_char,  # pyright: ignore[reportPrivateUsage]
)

__all__ = ["BytePairs"]

_WHITE: Final = "\t\v\f\x85"
_REMEMBERED = 50_000
_LONGEST_REMEMBERED = 40


class _Classes(dict[int, str]):
    """Code point -> L(etter), N(umber), R (line end), space, S (other white space), A('), O."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)[0]
        if char in "\r\n":
            found = "R"
        elif char == " " or char == "'":
            found = " " if char == " " else "A"
        elif char in _WHITE or category == "Z":
            found = "S"
        else:
            found = category if category in "LN" else "O"
        self[code] = found
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Splitting:
    """How a family of models splits text into words."""

    words: re.Pattern[str]
    """On classes. Every string matches at every position."""
    contractions: re.Pattern[str]
    """On the text itself, tried first where an apostrophe stands."""
    whole_words: bool
    """Whether a word that is a token stays one, even where no merges lead to it."""
    lines_apart: bool
    """Whether line ends are never of one word with letters behind them."""


_SPLITTING: Final = {
    "llama-bpe": _Splitting(
        words=re.compile(
            r"[S AO]?L+|N{1,3}| ?[AO]+R*|[S R]*R+|[S R]+(?![LNAO])|[S R]+",
        ),
        contractions=re.compile(r"'(?:s|t|re|ve|m|ll|d)", re.IGNORECASE),
        whole_words=True,
        lines_apart=True,
    ),
    "smollm": _Splitting(
        words=re.compile(r"N| ?L+| ?[AO]+|[S R]+(?![LAO])|[S R]+"),
        contractions=re.compile(r"'(?:s|t|re|ve|m|ll|d)"),
        whole_words=False,
        lines_apart=False,
    ),
}


class BytePairs:
    """A byte-level BPE vocabulary. Knows how long a prompt is and how a text begins."""

    def __init__(self, *, tokens: Sequence[str], merges: Sequence[str], pre: str) -> None:
        """Take a vocabulary, `tokens` by id and `merges` by rank, as GGUF files spell them.

        Raises:
            KeyError: The way of splitting `pre` is not known.
        """
        self._splitting = _SPLITTING[pre]
        self._ids = {token: i for i, token in enumerate(tokens)}
        self._tokens = tokens
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._classes = _Classes()
        self._bytes = _byte_of_char()
        self._chars = {byte: char for char, byte in self._bytes.items()}
        self._remembered: dict[str, tuple[str, ...]] = {}

    @classmethod
    def from_gguf(cls, info: Mapping[str, object]) -> BytePairs | None:
        """The vocabulary in a model's GGUF metadata; None where it isn't there, or is another kind.

        Ollama gives the metadata as `model_info` of a verbose `/api/show`.
        """
        tokens, merges = info.get("tokenizer.ggml.tokens"), info.get("tokenizer.ggml.merges")
        pre = info.get("tokenizer.ggml.pre")
        if not (isinstance(tokens, list) and isinstance(merges, list) and tokens and merges):
            return None
        if info.get("tokenizer.ggml.model") != "gpt2" or pre not in _SPLITTING:
            return None
        return cls(tokens=cast("list[str]", tokens), merges=cast("list[str]", merges), pre=str(pre))

    def slack(self, prompt: Prompt) -> int:
        """How many tokens fewer than `count` a server may honestly make of a prompt.

        One, for a token in front that it doesn't count; and where the vocabulary may put a
        header's line ends into one word with what follows, one a header, since servers differ in
        where they part a text before they split it.
        """
        if self._splitting.lines_apart:
            return 1
        return 1 + sum(
            isinstance(segment, Special) and segment.token == "<|end_header_id|>"
            for segment in prompt.segments
        )

    def encode(self, text: str) -> list[int]:
        """The ids of a text, none a control token's; -1 for bytes that the vocabulary lacks."""
        return [self._ids.get(token, -1) for token in self._text(text)]

    def first(self, text: str) -> str:
        """The text's first token, as text."""
        token = next(self._text(text), "")
        return bytes(self._bytes.get(char, 0) for char in token).decode("utf-8", "replace")

    def count(self, prompt: Prompt, *, bos: bool) -> int:
        """The tokens that a server makes of an escaped prompt, with `bos` of its own in front."""
        total = int(bos)
        run: list[str] = []
        for segment in prompt.segments:
            if not isinstance(segment, Special):
                run.append(segment.text)
                continue
            total += self._length(run)
            total += not (bos and segment.token == "<|begin_of_text|>")
        return total + self._length(run)

    def _length(self, run: list[str]) -> int:
        text = escape_specials("".join(run))
        run.clear()
        return sum(1 for _ in self._text(text))

    def _text(self, text: str) -> Iterator[str]:
        """A text's tokens, in the alphabet of byte-level BPE."""
        for word in self._words(text):
            if word in self._remembered:
                yield from self._remembered[word]
                continue
            spelled = "".join(self._chars[byte] for byte in word.encode("utf-8", "replace"))
            if self._splitting.whole_words and spelled in self._ids:
                found: tuple[str, ...] = (spelled,)
            else:
                found = tuple(self._merge(spelled))
            if len(word) <= _LONGEST_REMEMBERED and len(self._remembered) < _REMEMBERED:
                self._remembered[word] = found
            yield from found

    def _words(self, text: str) -> Iterator[str]:
        classes = text.translate(self._classes)
        words, contractions = self._splitting.words, self._splitting.contractions
        at = 0
        while at < len(text):
            match = contractions.match(text, at) if classes[at] == "A" else None
            end = (match or cast("re.Match[str]", words.match(classes, at))).end()
            yield text[at:end]
            at = end

    def _merge(self, spelled: str) -> Iterator[str]:
        """Merge pairs, the lowest rank first and of equal ranks the leftmost.

        A heap keeps it from taking quadratic time over a long word.
        """
        parts: list[str] = list(spelled)
        after = list(range(1, len(parts) + 1))
        before = list(range(-1, len(parts) - 1))
        waiting: list[tuple[int, int, str]] = []

        def consider(left: int) -> None:
            if left >= 0 and after[left] < len(parts):
                pair = f"{parts[left]} {parts[after[left]]}"
                rank = self._ranks.get(pair)
                if rank is not None:
                    heapq.heappush(waiting, (rank, left, pair))

        for at in range(len(parts)):
            consider(at)
        while waiting:
            _, left, pair = heapq.heappop(waiting)
            right = after[left]
            if right >= len(parts) or not parts[left]:
                continue
            if f"{parts[left]} {parts[right]}" != pair:
                continue  # one of the two has been merged since
            parts[left] += parts[right]
            parts[right] = ""
            after[left] = after[right]
            if after[left] < len(parts):
                before[after[left]] = left
            consider(before[left])
            consider(left)
        return (part for part in parts if part)
