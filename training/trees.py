"""Trees: conversations that begin alike, packed into one sequence so that what they share is
computed once.

A tool prompt is most of a conversation and carries no loss. So one prefix is followed by several
branches; each branch's positions go on from the prefix, and it sees the prefix and itself only
(`training.lora`). Every branch is then computed exactly as if it stood alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from corral.messages import Message, SystemMessage, ToolSpec
from corral.model_runtime.formats import render_prompt
from corral.model_runtime.formats.guard import render_guard
from corral.model_runtime.prompt import Segment, Special, Text, TextEncoder

__all__ = [
    "FolderEncoder",
    "GuardLike",
    "Labelled",
    "Packed",
    "TreeLike",
    "branch_of",
    "guard_branch",
    "guard_trees",
    "pack",
    "pack_tree",
    "take_labels",
]


class TreeLike(Protocol):
    """What `pack_tree` reads of a `training.conversations.Tree`."""

    @property
    def system(self) -> str: ...
    @property
    def tools(self) -> tuple[ToolSpec, ...]: ...
    @property
    def date(self) -> datetime.date | None: ...
    @property
    def branches(self) -> tuple[tuple[Message, ...], ...]: ...
    @property
    def format(self) -> str: ...


class GuardLike(Protocol):
    """What `guard_branch` reads of a `training.conversations.GuardExample`."""

    @property
    def conversation(self) -> tuple[tuple[Literal["User", "Agent"], str], ...]: ...
    @property
    def verdict(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Labelled:
    """Token ids, and which of them the model is to learn to write."""

    ids: list[int]
    learn: list[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One tree as tensors.

    `ids` and `positions` are of shape (tokens,): the prefix, then the branches. `at` lists the
    places whose next token is learnt, and `labels` those next tokens.
    """

    ids: Tensor
    positions: Tensor
    prefix: int
    branches: tuple[int, ...]
    at: Tensor
    labels: Tensor


class FolderEncoder:
    """A model folder's tokenizer, as a prompt wants it: lookalikes of control tokens in a text stay
    text.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True

    def special_id(self, token: str) -> int:
        index = self.tokenizer.token_to_id(token)
        if index is None:
            raise KeyError(token)
        return index

    def encode_text(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def branch_of(tree: TreeLike, branch: Sequence[Message], encoder: TextEncoder) -> Labelled:
    """One conversation of a tree, with the assistant's words and end tokens to be learnt, not its
    headers.
    """
    messages: list[Message] = [SystemMessage(text=tree.system)] if tree.system else []
    prompt = render_prompt(
        [*messages, *branch], tools=tree.tools, date=tree.date, format=tree.format
    )
    segments = prompt.segments[:-4]  # the header of a next answer, which isn't there
    ids: list[int] = []
    learn: list[bool] = []
    header = 0
    for segment in segments:
        if segment == Special("<|start_header_id|>", segment.part):
            header = 4  # the token, the role, the closing token, two newlines
        some = _encode(segment, encoder)
        ids += some
        learn += [segment.part == "assistant" and header <= 0] * len(some)
        header -= 1
    return Labelled(ids, learn)


def guard_branch(example: GuardLike, encoder: TextEncoder) -> Labelled:
    """A guard's prompt and the verdict to be learnt."""
    asked = render_guard(example.conversation).encode(encoder)
    verdict = [*encoder.encode_text(example.verdict), encoder.special_id("<|eot_id|>")]
    return Labelled(asked + verdict, [False] * len(asked) + [True] * len(verdict))


def _encode(segment: Segment, encoder: TextEncoder) -> list[int]:
    if isinstance(segment, Text):
        return encoder.encode_text(segment.text)
    return [encoder.special_id(segment.token)]


def pack(branches: Sequence[Labelled]) -> Packed:
    """Pack conversations behind the longest beginning that all share and none has to learn."""
    first = branches[0].ids
    shared = 0
    for column in zip(*(b.ids for b in branches), strict=False):
        if any(i != column[0] for i in column):
            break
        shared += 1
    # the token in front of the first label predicts it, so it must be a branch's own
    shared = max(0, min(shared, *(b.learn.index(True) - 1 for b in branches)))
    ids = list(first[:shared])
    positions = list(range(shared))
    at: list[int] = []
    labels: list[int] = []
    lengths: list[int] = []
    for branch in branches:
        offset = len(ids) - shared
        ids += branch.ids[shared:]
        positions += range(shared, len(branch.ids))
        lengths.append(len(branch.ids) - shared)
        for i, learn in enumerate(branch.learn):
            if learn:
                at.append(offset + i - 1)
                labels.append(branch.ids[i])
    return Packed(
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        prefix=shared,
        branches=tuple(lengths),
        at=torch.tensor(at),
        labels=torch.tensor(labels),
    )


def pack_tree(tree: TreeLike, encoder: TextEncoder, *, longest: int = 2048) -> Packed | None:
    """Pack a tree, without conversations of more than `longest` tokens; None if none is left."""
    branches = [branch_of(tree, branch, encoder) for branch in tree.branches]
    branches = [b for b in branches if len(b.ids) <= longest]
    return pack(branches) if branches else None


def guard_trees(
    examples: Iterable[GuardLike], encoder: TextEncoder, *, branches: int = 20
) -> Iterator[Packed]:
    """Pack a guard's examples, some of the same last role behind the policy that they share."""
    waiting: dict[str, list[Labelled]] = {"User": [], "Agent": []}
    for example in examples:
        group = waiting[example.conversation[-1][0]]
        group.append(guard_branch(example, encoder))
        if len(group) == branches:
            yield pack(group)
            group.clear()
    yield from (pack(group) for group in waiting.values() if group)


def take_labels(trees: Iterator[Packed], labels: int) -> list[Packed]:
    """The next trees, until they hold `labels` labels between them; fewer only at the end."""
    taken: list[Packed] = []
    count = 0
    for tree in trees:
        taken.append(tree)
        count += len(tree.labels)
        if count >= labels:
            break
    return taken
