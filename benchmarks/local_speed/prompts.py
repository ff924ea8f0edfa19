"""Prompts of an exact number of tokens, each of its own: nothing in a cache fits by accident."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from tokenizers import Tokenizer

from corral.model_runtime.prompt import Prompt, Segment, Special, Text
from corral.model_runtime.tokenizer import LlamaTokenizer


class Prompts:
    """Makes prompts for the model in a folder."""

    def __init__(self, folder: Path, *, seed: int = 1) -> None:
        self._plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer = LlamaTokenizer(self._plain, source=str(folder))
        self._random = Random(seed)
        names = self.vocabulary(control=False)
        plain = sorted(n[1:] for n in names if n[0] == "Ġ" and n[1:].isascii() and n[1:].isalpha())
        words = self._random.sample([n for n in plain if n.islower() and len(n) > 1], 4000)
        ids = [self.tokenizer.encode_text(f" {word}") for word in words]
        self._words = [word for word, each in zip(words, ids, strict=True) if len(each) == 1]

    def words(self, tokens: int) -> str:
        """A text of that many tokens, other words each time."""
        return "".join(f" {self._random.choice(self._words)}" for _ in range(tokens))

    def count(self, segments: Sequence[Segment]) -> int:
        return len(Prompt(tuple(segments)).encode(self.tokenizer))

    def vocabulary(self, *, control: bool = True) -> dict[str, int]:
        """Every token's name and id, with control tokens or without."""
        return self._plain.get_vocab(with_added_tokens=control)

    def text_of(self, ids: Sequence[int]) -> str:
        """Tokens as text."""
        return self._plain.decode(list(ids), skip_special_tokens=False)

    def preamble(self, tokens: int) -> list[Segment]:
        """The beginning of a prompt, of that many tokens; `user(..., begin=False)` follows."""
        head = [Special("<|begin_of_text|>"), *_header("system")]
        return [*head, Text(self.words(tokens - self.count(head)))]

    def user(self, tokens: int, *, begin: bool = True, text: str = "") -> list[Segment]:
        """A user's message of that many tokens in all, and the header of the answer.

        `text` stands in its middle, of which the message holds as many more words.
        """
        start = [Special("<|begin_of_text|>")] if begin else [Special("<|eot_id|>")]
        head = [*start, *_header("user")]
        tail = [Special("<|eot_id|>"), *_header("assistant")]
        room = tokens - self.count([*head, Text(text), *tail])
        if room < 0:
            raise ValueError(f"A message of {tokens} tokens has no room for what it should hold.")
        before = room // 2
        words = self.words(before) + text + self.words(room - before)
        made = [*head, Text(words), *tail]
        if self.count(made) != tokens:
            raise ValueError(f"A message came out as {self.count(made)} tokens, not {tokens}.")
        return made


def as_prompt(segments: Sequence[Segment]) -> Prompt:
    return Prompt(tuple(segments))


def _header(role: str) -> list[Segment]:
    return [
        Special("<|start_header_id|>"),
        Text(role),
        Special("<|end_header_id|>"),
        Text("\n\n"),
    ]
