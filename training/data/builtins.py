"""Llama 3.1's built-in tools in Meta's own form, from `builtins.txt`.

They are announced by name and called behind a tag: `brave_search.call(query="...")`. Source: Meta's
llama-models, `models/llama3_1/prompt_format.md`.
"""

from __future__ import annotations

import re
from random import Random

from training.data.banks import value
from training.data.core import Talk, chance, in_split, sections

__all__ = ["FORMAT", "NAMES", "builtin_talk"]

FORMAT = "llama3.1-json"
"""The prompt format that announces them."""
NAMES = ("brave_search", "wolfram_alpha")
_SLOT = re.compile(r"\{([^{}]+)\}")


def builtin_talk(rng: Random, split: str, name: str) -> Talk | None:
    """A request for one of the two, its call and mostly the result and the answer.

    Returns:
        None where the split has no wording for it.
    """
    lines = in_split(_lines(name), split)
    if not lines:
        return None
    line = rng.choice(lines)
    drawn = {slot: str(value(rng, split, slot)) for slot in dict.fromkeys(_SLOT.findall(line))}
    asked, query, found, told = (
        _SLOT.sub(lambda slot: drawn[slot[1]], part) for part in line.split(" ; ")
    )
    talk = Talk()
    talk.user(asked)
    talk.call((name, {"query": query}), ends="end_of_message")
    if chance(rng, 0.4):
        return talk
    talk.results(found if name == "wolfram_alpha" else {"query": query, "top_k": [found]})
    talk.say(told[:1].upper() + told[1:])
    return talk


def _lines(name: str) -> tuple[str, ...]:
    return sections("builtins.txt")[name]
