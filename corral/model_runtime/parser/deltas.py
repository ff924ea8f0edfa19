"""What a parser yields while the model still speaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["ArgumentsDelta", "CallStarted", "Delta", "TextDelta"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A stretch of prose. It is final: what was yielded as text is never taken back."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStarted:
    """The model has begun a call of the offered tool `name`: call number `index`, from 0.

    Provisional: only the message that `finish` returns says whether there is a call.
    """

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """A stretch of call `index`'s arguments, as the model spells them. Provisional, for display."""

    index: int
    text: str


Delta: TypeAlias = TextDelta | CallStarted | ArgumentsDelta
