"""The conversations that cria and cria-guard are trained and measured on, made from a seed.

`cria_trees` teaches Llama 3.2's format and tool calling, `guard_examples` Llama Guard 3's verdicts.
All is synthetic; the generators and banks are in `training.data`. What is trained on shares no
tool, no wording and (where a bank is large) no value with what is measured on, and the same seed
gives the same data.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from random import Random
from typing import Literal

from corral.messages import Message, ToolSpec
from training.data.builtins import FORMAT
from training.data.core import SPLITS
from training.data.guarding import draw_guarded
from training.data.mixture import draw_exchange, draw_tree

__all__ = ["GuardExample", "Tree", "cria_trees", "guard_examples"]

_TREES = 12
"""How many trees a validation or held-out split has, of eight branches each."""
_GUARDED = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Conversations that share a system prompt and its tools.

    Every branch begins with a user's message and ends with the assistant's: its words, or a call.
    """

    system: str
    tools: tuple[ToolSpec, ...]
    date: datetime.date | None
    branches: tuple[tuple[Message, ...], ...]
    format: str = "llama3.2"
    """The prompt format; another one where built-in tools are announced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardExample:
    """A conversation and the verdict on its last turn: `safe`, or `unsafe` and a line of codes."""

    conversation: tuple[tuple[Literal["User", "Agent"], str], ...]
    verdict: str


def cria_trees(seed: int, split: str = "train") -> Iterator[Tree]:
    """Trees of conversations: without end for `train`, 12 for `validation` and for `heldout`.

    Raises:
        ValueError: If `split` is none of the three.
    """
    rng = _source("cria", seed, split)
    for number in _numbers(split, _TREES):
        system, tools, date, talks = draw_tree(rng, split, number)
        branches = tuple(tuple(talk.messages) for talk in talks)
        builtin = any(tool.kind == "builtin" for tool in tools)
        yield Tree(
            system=system,
            tools=tools,
            date=date,
            branches=branches,
            format=FORMAT if builtin else "llama3.2",
        )


def guard_examples(seed: int, split: str = "train") -> Iterator[GuardExample]:
    """Conversations with verdicts: without end for `train`, 240 for `validation` and for `heldout`.

    Raises:
        ValueError: If `split` is none of the three.
    """
    rng = _source("guard", seed, split)
    for _ in _numbers(split, _GUARDED):
        conversation, verdict = draw_guarded(rng, split, draw_exchange)
        yield GuardExample(conversation=conversation, verdict=verdict)


def _source(what: str, seed: int, split: str) -> Random:
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; use one of {', '.join(SPLITS)}.")
    return Random(f"{what} {seed} {split}")


def _numbers(split: str, finite: int) -> Iterator[int]:
    return count() if split == "train" else islice(count(), finite)
