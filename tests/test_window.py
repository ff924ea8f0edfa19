"""The window: what of a conversation is sent to the model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.errors import ContextOverflow
from corral.memory import Window, fit, repair
from corral.messages import (
    AssistantMessage,
    Message,
    SystemMessage,
    ToolCall,
    ToolResult,
    UserMessage,
)

OVERHEAD = 20
"""What the instructions and the tools take of every prompt."""


def words(message: Message) -> int:
    if isinstance(message, ToolResult):
        content = message.content
        text = content if isinstance(content, str) else json.dumps(content)
    else:
        text = message.text
    calls = message.calls if isinstance(message, AssistantMessage) else ()
    return 4 + len(text.split()) + sum(4 + len(str(call.arguments).split()) for call in calls)


class Counter:
    """Counts words, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, messages: Sequence[Message]) -> int:
        self.asked += 1
        return OVERHEAD + sum(map(words, messages))


def total(messages: Sequence[Message]) -> int:
    return OVERHEAD + sum(map(words, messages))


def user(text: str) -> UserMessage:
    return UserMessage(content=text)


def step(call_id: str, content: object = "fine") -> list[Message]:
    call = ToolCall(id=call_id, name="look", arguments={"at": call_id})
    return [
        AssistantMessage(calls=(call,)),
        ToolResult(call_id=call_id, name="look", content=content),
    ]


def prose(number: int) -> str:
    return " ".join(f"word{n % 100:02}" for n in range(number))


def chat(groups: int, length: int = 30) -> list[Message]:
    """Turns of a question, a call, its result and an answer."""
    messages: list[Message] = []
    for number in range(groups):
        messages += [user(f"question {number} {prose(length)}"), *step(f"c{number}")]
        messages.append(AssistantMessage(text=f"answer {number} {prose(length)}"))
    return messages


async def test_all_of_a_conversation_that_fits_is_sent():
    messages = chat(5)
    counter = Counter()
    assert await fit(messages, budget=total(messages), count=counter) == messages
    assert counter.asked == 1


async def test_the_oldest_turns_go_first_and_deep_enough_to_last():
    messages = chat(40)
    budget = 1000
    kept = await fit(messages, budget=budget, count=Counter())
    assert kept == messages[-len(kept) :] and isinstance(kept[0], UserMessage)
    assert 0.3 * budget <= total(kept) <= 0.6 * budget


async def test_a_window_keeps_its_prefix_until_it_is_full_again():
    window, budget = Window(), 1000
    messages: list[Message] = []
    firsts: list[Message] = []
    for number in range(120):
        messages += chat(number + 1)[-4:]
        kept = await window.fit(messages, budget=budget, count=Counter())
        assert kept == messages[-len(kept) :] and total(kept) <= budget
        firsts.append(kept[0])
    cuts = sum(a != b for a, b in zip(firsts, firsts[1:], strict=False))
    # A turn has 100 tokens and a cut frees 400 at least: every fourth turn at most.
    assert 0 < cuts <= 120 / 4


async def test_without_a_memory_the_prefix_still_changes_seldom():
    budget = 1000
    messages: list[Message] = []
    firsts: list[Message] = []
    for number in range(120):
        messages += chat(number + 1, length=10)[-4:]
        firsts.append((await fit(messages, budget=budget, count=Counter()))[0])
    cuts = sum(a != b for a, b in zip(firsts, firsts[1:], strict=False))
    assert 0 < cuts < 40


async def test_the_steps_of_a_turn_go_on_from_the_same_prefix():
    window, budget = Window(), 1000
    messages = [*chat(40), user("now do a lot")]
    first = await window.fit(messages, budget=budget, count=Counter())
    for number in range(10):
        messages += step(f"s{number}", prose(10))
        kept = await window.fit(messages, budget=budget, count=Counter())
        assert kept[: len(first)] == first
        first = kept


async def test_another_conversation_begins_anew():
    window = Window()
    assert len(await window.fit(chat(40), budget=1000, count=Counter())) < 160
    other = [user("hello"), *chat(5)]
    assert await window.fit(other, budget=1000, count=Counter()) == other
    assert await window.fit(other[:1], budget=1000, count=Counter()) == other[:1]


async def test_few_questions_are_asked_even_of_a_long_conversation():
    counter = Counter()
    await fit(chat(3000, length=5), budget=2000, count=counter)
    assert counter.asked <= 14


async def test_a_long_result_is_shortened_in_the_middle():
    page = "BEGIN " + prose(20_000) + " END"
    messages = [*chat(3), user("read it"), *step("page", page)]
    kept = await fit(messages, budget=2000, count=Counter())
    assert kept[:2] == messages[-3:-1] and total(kept) <= 2000
    content = kept[2].content
    assert content.startswith("BEGIN word00") and content.endswith(" END")
    (left_out,) = re.findall(r"… \[(\d+) characters left out\] …", content)
    assert len(re.sub(r"… \[.*?\] …", "", content)) + int(left_out) == len(page)
    assert total(kept) > 600, "more was left out than had to be"


async def test_the_oldest_results_are_shortened_first():
    messages = [user("go")]
    for number in range(6):
        messages += step(f"c{number}", f"first{number} {prose(400)}")
    kept = await fit(messages, budget=1500, count=Counter())
    cut = ["left out" in str(m.content) for m in kept if isinstance(m, ToolResult)]
    assert cut == sorted(cut, reverse=True) and cut[0] and not cut[-1]
    assert total(kept) <= 0.6 * 1500
    assert [type(m) for m in kept] == [type(m) for m in messages]


async def test_a_result_that_is_not_text_is_shortened_as_json():
    messages = [user("go"), *step("c", {"rows": [prose(10)] * 500})]
    kept = await fit(messages, budget=1000, count=Counter())
    assert kept[-1].content.startswith('{"rows": ["word00')


async def test_what_cannot_be_shortened_is_an_overflow_that_says_by_how_much():
    messages = [*chat(3), user(prose(500)), *step("c", prose(3000))]
    with pytest.raises(ContextOverflow) as caught:
        await fit(messages, budget=300, count=Counter())
    assert caught.value.available == 300
    assert 500 < caught.value.needed < 700
    with pytest.raises(ContextOverflow):
        await Window().fit([user("hi")], budget=3, count=Counter())


async def test_what_is_no_conversation_is_refused():
    for messages in ([], [AssistantMessage(text="hi")], [SystemMessage(text="x"), user("hi")]):
        with pytest.raises(ValueError, match="user message"):
            await fit(messages, budget=100, count=Counter())


sizes = st.integers(0, 60)
results = st.one_of(sizes.map(prose), st.integers(100, 2000).map(prose), st.just({"a": [1, 2]}))
groups = st.tuples(sizes, st.lists(results, max_size=4))
conversations = st.lists(groups, min_size=1, max_size=30)


def build(script: list) -> list[Message]:
    messages: list[Message] = []
    for number, (length, contents) in enumerate(script):
        messages.append(user(f"{number} {prose(length)}"))
        for index, content in enumerate(contents):
            messages += step(f"{number}.{index}", content)
        messages.append(AssistantMessage(text=f"done {number}"))
    return messages


def assert_window(kept: list[Message], messages: list[Message], budget: int) -> None:
    assert total(kept) <= budget
    assert isinstance(kept[0], UserMessage) and repair(kept) == kept
    tail = messages[-len(kept) :]
    newest = max(i for i, message in enumerate(messages) if isinstance(message, UserMessage))
    assert len(kept) >= len(messages) - newest, "the newest group is not whole"
    if kept != tail:
        assert len(kept) == len(messages) - newest, "shortened, although older groups are there"
    for sent, said in zip(kept, tail, strict=True):
        if sent != said:
            assert isinstance(sent, ToolResult) and sent.call_id == said.call_id
            assert "characters left out" in sent.content


@settings(deadline=None, max_examples=60)
@given(conversations, st.integers(60, 3000))
def test_whatever_is_sent_fits_and_is_whole(script, budget):
    messages = build(script)
    counter = Counter()
    try:
        kept = anyio.run(lambda: fit(messages, budget=budget, count=counter))
    except ContextOverflow as overflow:
        newest = max(i for i, m in enumerate(messages) if isinstance(m, UserMessage))
        assert budget < overflow.needed <= total(messages[newest:])
    else:
        assert_window(kept, messages, budget)
        if total(messages) <= budget:
            assert kept == messages
        elif sum(isinstance(message, UserMessage) for message in kept) > 1:
            assert total(kept) <= 0.6 * budget
    assert counter.asked <= 20


@settings(deadline=None, max_examples=30)
@given(conversations, st.integers(400, 3000))
def test_a_window_holds_the_same_rules_turn_after_turn(script, budget):
    async def play():
        window, start, last = Window(), 0, 0
        for turns in range(1, len(script) + 1):
            messages = build(script[:turns])
            try:
                kept = await window.fit(messages, budget=budget, count=Counter())
            except ContextOverflow:
                continue
            assert_window(kept, messages, budget)
            start = len(messages) - len(kept)
            assert start >= last, "what was left out came back"
            last = start

    anyio.run(play)
