"""Chooses what of a conversation fits the model's context, so that the prompt stays stable.

The unit is a group: a user message and all up to the next one. Groups leave from the old end and
whole, so a call is never parted from its result. A model's key/value cache holds only as long as
the prompt grows at its end, so a cut is made seldom and deep: when the whole no longer fits, it
goes down to 60 % of the budget or less, and the next turns fill what was freed. Only when the
newest group alone is too long are its tool results shortened.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from corral.errors import ContextOverflow
from corral.messages import AssistantMessage, Message, SystemMessage, ToolResult, UserMessage

__all__ = ["Count", "Window", "fit"]

Count: TypeAlias = Callable[[Sequence[Message]], Awaitable[int]]
"""Counts the tokens of the prompt that is rendered from these messages."""

_KEEP = 0.6
"""What part of the budget a cut leaves in use."""

_MARK = 0.6
"""Characters between the places where a cut may fall, for each token of the budget: 15 % of the
budget in English. Such places depend on nothing but the conversation's beginning, so that a cut
falls in the same place for many turns even when nobody remembers the last one."""

_SHORTEST = 400
"""Characters that a shortened result keeps at least; one of less than twice that stays whole."""

_HEAD = 0.7
"""How much of what a shortened result keeps is its beginning."""


class Window:
    """The window of one session, which remembers where it was cut.

    What a window leaves out, it leaves out until it has to cut again: the prompt of the next turn
    begins like that of the last. A window that remembers nothing, `fit`, makes the same first cut
    but moves it more often.
    """

    def __init__(self) -> None:
        """Begin with all of the conversation."""
        self._start = 0
        self._first: Message | None = None

    async def fit(self, messages: Sequence[Message], *, budget: int, count: Count) -> list[Message]:
        """Return what of the conversation to send: see `fit`.

        `messages` must be the conversation of the last call with more at its end; from any other
        conversation the window begins anew.
        """
        start = self._start
        if not start or start >= len(messages) or messages[start] != self._first:
            start = 0
        kept, cut = await _fit(
            messages[start:], budget=budget, count=count, passed=messages[:start]
        )
        self._start = start + cut
        self._first = messages[self._start]
        return kept


async def fit(messages: Sequence[Message], *, budget: int, count: Count) -> list[Message]:
    """Return the newest part of a conversation that fits, beginning with a user message.

    All of it, if that fits. Else the oldest groups are left out until at most 60 % of the budget is
    in use, or only the newest group is left. If that alone doesn't fit, its tool results are
    shortened in the middle, the oldest first: to 60 % of the budget, or where that would touch the
    results of the last step, to the budget.

    Args:
        messages: A repaired conversation, without a system message.
        budget: How many tokens the prompt may have.
        count: Counts the tokens of the prompt for some messages. It is asked about a dozen times at
            most, for whole groups only, and must not give less for more messages.

    Raises:
        ContextOverflow: If the newest group doesn't fit with all of its results shortened.
        ValueError: If there is no user message, or a system message.
    """
    return (await _fit(messages, budget=budget, count=count, passed=()))[0]


async def _fit(
    messages: Sequence[Message], *, budget: int, count: Count, passed: Sequence[Message]
) -> tuple[list[Message], int]:
    """What to send, and the index in `messages` at which it begins."""
    starts = [i for i, message in enumerate(messages) if isinstance(message, UserMessage)]
    if not starts or any(isinstance(message, SystemMessage) for message in messages):
        raise ValueError("a window needs a user message, and takes no SystemMessage")
    first, newest = starts[0], starts[-1]
    if await count(messages[first:]) <= budget:
        return list(messages[first:]), first
    places = _places(messages, starts, apart=_MARK * budget, passed=sum(map(_size, passed)))

    async def small(index: int) -> bool:
        return await count(messages[places[index] :]) <= _KEEP * budget

    index = await _first_true(small, len(places))
    if index is not None:
        return list(messages[places[index] :]), places[index]
    if newest == first or await count(messages[newest:]) > budget:
        return await _shorten(messages[newest:], budget=budget, count=count), newest
    return list(messages[newest:]), newest


def _places(
    messages: Sequence[Message], starts: list[int], *, apart: float, passed: int
) -> list[int]:
    """The starts of groups where a cut may fall: one in each stretch of characters, and the last.

    `passed` counts the characters before `messages`. The very first start is no cut.
    """
    places: list[int] = []
    position, stretch = passed, int(passed // apart)
    starting = frozenset(starts[1:])
    for i, message in enumerate(messages):
        if i in starting and (i == starts[-1] or position // apart > stretch):
            places.append(i)
            stretch = int(position // apart)
        position += _size(message)
    return places


async def _shorten(group: Sequence[Message], *, budget: int, count: Count) -> list[Message]:
    """The group with its results shortened as little as it takes.

    A cut halves, at least, the oldest result that can still lose something; how many cuts it takes
    is what is searched for. What is kept is a power of two times the shortest length, so that one
    more step in the turn seldom changes what was shortened before.
    """
    texts = {
        i: _text(message) for i, message in enumerate(group) if isinstance(message, ToolResult)
    }
    last_step = max(
        (i for i, message in enumerate(group) if not isinstance(message, ToolResult)), default=0
    )
    cuts: list[tuple[int, int]] = []
    spare = 0
    for i, text in texts.items():
        length = _SHORTEST
        lengths: list[int] = []
        while 2 * length <= len(text):
            lengths.append(length)
            length *= 2
        cuts.extend((i, length) for length in reversed(lengths))
        if i < last_step:
            spare = len(cuts)

    def after(number: int) -> list[Message]:
        keep = dict(cuts[:number])
        return [
            message.model_copy(update={"content": _cut(texts[i], keep[i])})
            if isinstance(message, ToolResult) and i in keep
            else message
            for i, message in enumerate(group)
        ]

    async def comfortable(index: int) -> bool:
        return await count(after(index + 1)) <= _KEEP * budget

    async def enough(index: int) -> bool:
        return await count(after(index + 1)) <= budget

    index = await _first_true(comfortable, spare)
    if index is None:
        index = await _first_true(enough, len(cuts))
    if index is None:
        needed = await count(after(len(cuts)))
        raise ContextOverflow(needed=needed, available=budget)
    return after(index + 1)


async def _first_true(test: Callable[[int], Awaitable[bool]], number: int) -> int | None:
    """The first index below `number` for which `test` holds, if it holds for all after it too."""
    low, high, found = 0, number, None
    while low < high:
        middle = (low + high) // 2
        if await test(middle):
            found = high = middle
        else:
            low = middle + 1
    return found


def _text(message: ToolResult) -> str:
    """The result as formats show it: a string as it is, anything else as JSON."""
    if isinstance(message.content, str):
        return message.content
    return json.dumps(message.content, ensure_ascii=False)


def _cut(text: str, keep: int) -> str:
    head = int(keep * _HEAD)
    tail = keep - head
    return f"{text[:head]}… [{len(text) - keep} characters left out] …{text[-tail:]}"


def _size(message: Message) -> int:
    """Roughly how many characters the message has in a prompt."""
    if isinstance(message, ToolResult):
        return len(_text(message))
    calls = message.calls if isinstance(message, AssistantMessage) else ()
    return len(message.text) + sum(len(str(call.arguments)) for call in calls)
