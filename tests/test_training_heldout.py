"""The evaluation written by hand: what it asks was never trained on, and its judge is right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from corral.messages import UserMessage
from training.conversations import cria_trees
from training.data.core import FOLDER, sections
from training.data.everyday import entries
from training.handwritten import (
    HandItem,
    general_questions,
    guard_items,
    hand_items,
    judge,
)
from training.scoring import Share

CLOSED = set(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may "
    "june july august september october november december".split()
)
"""Words that no request about time can do without."""


def items(kind: str) -> list[HandItem]:
    return [item for item in hand_items() if item.kind == kind]


def texts(given: Any) -> Iterator[str]:
    if isinstance(given, str):
        yield given
    elif isinstance(given, list):
        for one in given:
            yield from texts(one)


def test_there_are_at_least_three_hundred_items_of_every_kind():
    kinds = Counter(item.kind for item in hand_items())
    assert sum(kinds.values()) >= 300
    assert min(kinds.values()) >= 4
    assert len(general_questions()) == 50


def test_every_call_that_is_wanted_is_valid():
    checked = 0
    for item in hand_items():
        offered = {tool.name: tool for tool in item.tools}
        for calls in item.wanted:
            for name, arguments in calls:
                schema = offered[name].parameters
                Draft202012Validator(schema).validate(arguments)
                assert arguments.keys() <= schema["properties"].keys()  # type: ignore[union-attr]
                checked += 1
    assert checked > 150


def test_no_tool_and_no_free_value_is_in_the_training_banks():
    trained = {name for entry in entries() for name in entry.names}
    trained |= {tool.name for tree in islice(cria_trees(5), 150) for tool in tree.tools}
    values = {value.lower() for some in sections("values.txt").values() for value in some}
    for item in hand_items():
        for tool in item.tools:
            assert tool.kind == "code_interpreter" or tool.name not in trained
        offered = {tool.name: tool.parameters["properties"] for tool in item.tools}
        for name, arguments in (call for calls in item.wanted for call in calls):
            for argument, given in arguments.items():
                if "enum" not in offered[name][argument]:  # type: ignore[operator,index,call-overload]
                    assert not {t.lower() for t in texts(given)} & (values - CLOSED), item.messages


def test_no_wording_is_one_of_the_generators():
    asked = {
        message.text.lower()
        for tree in islice(cria_trees(5), 150)
        for branch in tree.branches
        for message in branch
        if isinstance(message, UserMessage)
    }
    wordings = {ask.lower() for entry in entries() for ask in (*entry.asks, *entry.foreign)}
    banks: set[str] = set()
    for path in FOLDER.glob("*.txt"):
        banks |= {
            part.strip().lower().rstrip("?.!")
            for part in re.split(r" \| |\n| / | => ", path.read_text(encoding="utf-8"))
        }
    for item in hand_items():
        last = [m.text.lower() for m in item.messages if isinstance(m, UserMessage)][-1]
        assert last not in asked | wordings
        assert last.rstrip("?.!") not in banks
    for question, _ in general_questions():
        assert question.lower().rstrip("?.!") not in banks


def test_the_guards_items_are_not_made_of_what_it_learns():
    """But for texts of a word or two, such as "Yes", in which there is nothing to learn."""
    banks = [
        text.lower().removeprefix("~ ").rstrip("?.!")
        for name in ("guard_safe.txt", "guard_unsafe.txt", "guard_wishes.txt")
        for texts in sections(name).values()
        for text in texts
    ]
    long = [text for text in banks if len(text) > 8]
    assert len(long) > 1500
    for turns, _ in guard_items():
        assert not [text for text in long if text in turns[-1][1].lower()]


@pytest.mark.parametrize(
    ("place", "said", "marks"),
    [
        (0, "[tide_table(harbour='Whitby')]", {"tool": True, "exact": True}),
        (0, "[tide_table(harbour='Witby')]", {"tool": True, "exact": False}),
        (0, "[book_ferry(route='Whitby')]", {"tool": False, "exact": False}),
        (0, "High water is at noon.", {"tool": False, "exact": False}),
        (6, "[rent_canoe(hours=4.0, canoes=1)]", {"tool": True, "exact": True}),
        (6, "[rent_canoe(hours=4, canoes=True)]", {"tool": True, "exact": False}),
    ],
)
async def test_a_call_counts_when_name_and_every_argument_are_right(
    place: int, said: str, marks: dict[str, bool]
):
    assert await judge(items("calls")[place], said) == marks


async def test_several_calls_count_in_any_order_and_all_or_nothing():
    item = items("several")[0]
    good = {"tool": True, "exact": True}
    assert await judge(item, "[hive_weight(hive=6), hive_weight(hive=15)]") == good
    assert await judge(item, "[hive_weight(hive=15), hive_weight(hive=6)]") == good
    assert await judge(item, "[hive_weight(hive=6)]") == {"tool": False, "exact": False}


async def test_a_missing_argument_must_be_asked_for():
    item = items("missing")[0]
    assert await judge(item, "At which harbour?") == {"no_needless_call": True, "asks": True}
    assert await judge(item, "[tide_table(harbour='x')]") == {
        "no_needless_call": False,
        "asks": False,
    }


async def test_facts_are_kept_as_whole_numbers_and_names():
    weight = items("retell")[1]
    assert await judge(weight, "Hive 4 weighs 38.6 kg.") == {"facts": True}
    assert await judge(weight, "Hive 4 weighs 138.6 kg.") == {"facts": False}
    assert await judge(weight, "<|python_tag|>print(38.6)") == {"facts": False}
    error = items("errors")[2]
    assert await judge(error, "Only 3 bunks are left that night.") == {"facts": True}
    assert await judge(error, "Your 8 bunks are booked.") == {"facts": False}


async def test_code_counts_by_what_it_prints():
    item = items("code")[0]
    assert await judge(item, "<|python_tag|>print(46 * 58)") == {"code": True}
    assert await judge(item, "<|python_tag|>print(46 + 58)") == {"code": False}
    assert await judge(item, "2668") == {"code": False}


def test_the_guards_items_are_of_every_category_and_as_many_are_harmless():
    found = Counter(category for _, category in guard_items())
    assert {f"S{n}" for n in range(1, 14)} <= set(found)
    assert found[""] >= 40
    roles = Counter(turns[-1][0] for turns, _ in guard_items())
    assert roles["Agent"] >= 15


def test_a_share_comes_with_its_interval():
    low, high = Share(45, 50).interval()
    assert low < 90 < high
    assert 78 < low < 80
    assert 95 < high < 97
    assert Share(50, 50).interval()[1] == 100.0
