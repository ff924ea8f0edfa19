"""What every generator here shares: the split by name, made-up words, a conversation in the making.

A thing (a tool, a wording, a value) belongs to one of three splits by a hash of its own text, so
that what a model is measured on has never been trained on, however the banks grow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random

from pydantic import JsonValue

from corral.messages import (
    AssistantMessage,
    Message,
    StopReason,
    ToolCall,
    ToolResult,
    UserMessage,
)

__all__ = [
    "FOLDER",
    "SPLITS",
    "Talk",
    "chance",
    "filled",
    "in_split",
    "joined",
    "lower_first",
    "made_up",
    "sections",
    "split_of",
]

FOLDER = Path(__file__).parent
"""Where the banks lie."""

SPLITS = ("train", "validation", "heldout")


@cache
def split_of(name: str) -> str:
    """The split that `name` belongs to for ever: 84 % train, 8 % validation, 8 % held-out."""
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 100
    return "train" if place < 84 else "validation" if place < 92 else "heldout"


def in_split(
    items: Sequence[str], split: str, pinned: frozenset[str] = frozenset()
) -> tuple[str, ...]:
    """Those of `items` that belong to `split`; what is `pinned` belongs to train."""
    return tuple(item for item in items if ("train" if item in pinned else split_of(item)) == split)


@cache
def sections(name: str) -> dict[str, tuple[str, ...]]:
    """A bank file: `[section]` lines, and below each its items, between ` | ` or line by line.

    In an item, a backslash and an n is a line's end; a backslash in front of a line makes it an
    item even if it looks like a section.
    """
    found: dict[str, list[str]] = {}
    section = ""
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            found.setdefault(section, [])
        elif line and not line.startswith("# "):
            found[section] += [
                item.strip().replace("\\n", "\n") for item in line.removeprefix("\\").split(" | ")
            ]
    return {section: tuple(items) for section, items in found.items()}


def filled(template: str, slots: Mapping[str, str]) -> str:
    """The template with each `{name}` of `slots` put in; other braces stay."""
    for name, text in slots.items():
        template = template.replace("{" + name + "}", text)
    return template


def chance(rng: Random, share: float) -> bool:
    """True in `share` of the cases."""
    return rng.random() < share


_ONSETS = (
    "b c d f g h j k l m n p r s t v w z br cl dr fl gr kr pl qu sk st th tr vr zh sh ch".split()
)
_VOWELS = "a e i o u a e i o ai ea oo ou y".split()
_CODAS = "n r s l t m x k d sh nd rk st ll th".split() + [""] * 9


def made_up(rng: Random, split: str = "train", syllables: int = 0) -> str:
    """A lower-case word that means nothing, such as `vorkin`, from the split's share of them."""
    while True:
        count = syllables or rng.choice((2, 2, 2, 3))
        word = "".join(
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count)
        )
        if split_of(word) == split and len(word) < 13:
            return word


def joined(items: Sequence[str], last: str = "and") -> str:
    """`a, b and c`."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def lower_first(text: str) -> str:
    """The text with a small first letter, unless it begins with `I` or an abbreviation."""
    first = text.split(" ", 1)[0]
    if first.startswith(("I'", "I ")) or first == "I" or first[1:2].isupper():
        return text
    return text[:1].lower() + text[1:]


class Talk:
    """A conversation under construction; its `messages` are what was said so far."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.twin: Talk | None = None
        """A conversation that is to stand beside this one: nearly the same request, served."""
        self._calls = 0

    @property
    def opening(self) -> str:
        """What the user says first."""
        first = self.messages[0]
        return first.text if isinstance(first, UserMessage) else ""

    def user(self, text: str) -> None:
        """The user says `text`."""
        self.messages.append(UserMessage(content=text))

    def say(self, text: str) -> None:
        """The assistant answers in words."""
        self.messages.append(AssistantMessage(text=text))

    def call(
        self, *calls: tuple[str, dict[str, JsonValue]], ends: StopReason = "end_of_turn"
    ) -> None:
        """The assistant calls functions, by name and arguments, in one message."""
        made: list[ToolCall] = []
        for name, arguments in calls:
            self._calls += 1
            made.append(ToolCall(id=f"call_{self._calls}", name=name, arguments=arguments))
        self.messages.append(AssistantMessage(calls=tuple(made), stop_reason=ends))

    def code(self, program: str) -> None:
        """The assistant runs `program` in the code interpreter."""
        self._calls += 1
        call = ToolCall(
            id=f"call_{self._calls}", name="code_interpreter", arguments={"code": program}
        )
        self.messages.append(AssistantMessage(calls=(call,), stop_reason="end_of_message"))

    def results(self, *contents: JsonValue, is_error: bool = False) -> None:
        """The results of the calls just made, in order."""
        last = self.messages[-1]
        if not isinstance(last, AssistantMessage) or len(last.calls) != len(contents):
            raise ValueError("There must be one result for each call just made.")
        for call, content in zip(last.calls, contents, strict=True):
            self.messages.append(
                ToolResult(call_id=call.id, name=call.name, content=content, is_error=is_error)
            )
