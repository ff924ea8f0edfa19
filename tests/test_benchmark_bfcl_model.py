"""The benchmark of the leaderboard's questions: it knows right from wrong, and asks a model."""

from __future__ import annotations

import json
import re

import pytest
from benchmark_scripts import load_benchmark

from corral.messages import AssistantMessage, InvalidCall, ToolCall

bfcl_model = load_benchmark("bfcl_model")

TABLE_TOOL = {
    "name": "shop.find_tables",
    "description": "Finds tables in the shop's catalogue.",
    "parameters": {
        "type": "dict",
        "properties": {
            "wood": {"type": "string", "description": "Kind of wood."},
            "seats": {"type": "integer", "description": "How many can sit at it."},
            "metres": {"type": "float", "description": "Its length."},
            "sizes": {"type": "tuple", "items": {"type": "float"}, "description": "Its sides."},
            "maker": {
                "type": "dict",
                "properties": {"name": {"type": "string"}, "since": {"type": "integer"}},
                "description": "Who made it.",
            },
            "in_stock": {"type": "boolean", "description": "Only those that are there."},
        },
        "required": ["wood", "seats"],
    },
}
TABLE_CALL = {
    "shop.find_tables": {
        "wood": ["oak", "cherry, from O'Hara"],
        "seats": [4],
        "metres": [2, 1.5, ""],
        "sizes": [[1.5, 2], ""],
        "maker": [{"name": ["Hansen & Sons"], "since": [1950, ""]}, ""],
        "in_stock": [True, ""],
    }
}
ORDER_TOOL = {
    "name": "shop.order_status",
    "description": "Look up an order's status.",
    "parameters": {
        "type": "dict",
        "properties": {"order_id": {"type": "integer", "description": "The order's number."}},
        "required": ["order_id"],
    },
}


def entry(number, asked, *functions):
    question = [[{"role": "user", "content": asked}]]
    return {"id": f"shop_{number}", "question": question, "function": list(functions)}


def write(path, *lines):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


@pytest.fixture
def leaderboard(tmp_path):
    """A folder as the leaderboard's."""
    write(
        tmp_path / "BFCL_v4_simple_python.json",
        entry(0, "Where is order 1047?", ORDER_TOOL),
        entry(1, "Find me a table of oak for four people.", TABLE_TOOL),
        entry(2, "Where is order 1048?", ORDER_TOOL),
    )
    write(
        tmp_path / "possible_answer" / "BFCL_v4_simple_python.json",
        {"id": "shop_0", "ground_truth": [{"shop.order_status": {"order_id": [1047]}}]},
        {"id": "shop_1", "ground_truth": [TABLE_CALL]},
        {"id": "shop_2", "ground_truth": [{"shop.order_status": {"order_id": [-1]}}]},
    )
    write(tmp_path / "BFCL_v4_irrelevance.json", entry(3, "Sing me a song.", TABLE_TOOL))
    return tmp_path


@pytest.fixture
def judged(leaderboard):
    """Why calls of the tables' tool aren't right: one call for each set of arguments."""
    question = bfcl_model.load(leaderboard, "simple")[1]

    def judge(*calls, name="shop_find_tables"):
        made = [ToolCall(id=f"call_{i}", name=name, arguments=each) for i, each in enumerate(calls)]
        return bfcl_model.failing(AssistantMessage(calls=tuple(made)), question)

    return judge


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"wood": "OAK"},
        {"wood": 'Cherry - from O"Hara.'},
        {"metres": 1.5},
        {"metres": 2},
        {"metres": 2.0},
        {"sizes": [1.5, 2]},
        {"sizes": [1.5, 2.0]},
        {"maker": {"name": "hansen & sons"}},
        {"maker": {"name": "Hansen & Sons", "since": 1950}},
        {"in_stock": True},
    ],
)
def test_a_call_is_right_in_every_way_that_the_leaderboard_allows(judged, more):
    assert judged({"wood": "oak", "seats": 4, **more}) is None


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"wood": "pine"}, "'wood' is 'pine'"),
        ({"wood": 4}, "'wood' is 4"),
        ({"seats": 5}, "'seats' is 5"),
        ({"seats": 4.0}, "'seats' is 4.0"),
        ({"seats": "4"}, "'seats' is '4'"),
        ({"metres": True}, "'metres' is True"),
        ({"sizes": [1.5]}, "'sizes' is [1.5]"),
        ({"sizes": [2, 1.5]}, "'sizes' is [2, 1.5]"),
        ({"maker": {"since": 1950}}, "'maker' is {'since': 1950}"),
        ({"maker": {"name": "Hansen & Sons", "town": "Oslo"}}, "'maker' is "),
        ({"in_stock": 1}, "'in_stock' is 1"),
        ({"colour": "red"}, "'colour' is unknown"),
    ],
)
def test_a_call_that_is_wrong_is_told_why(judged, more, why):
    assert judged({"wood": "oak", "seats": 4, **more}).startswith(why)


def test_calls_that_are_missing_or_too_many_or_of_another_tool_are_wrong(judged):
    right = {"wood": "oak", "seats": 4}
    assert judged({"wood": "oak"}) == "'seats' is missing"
    assert judged() == "calls: 0 instead of 1"
    assert judged(right, right) == "calls: 2 instead of 1"
    assert judged(right, name="shop_find_chairs") == "calls 'shop_find_chairs'"


def test_what_may_not_be_left_out_is_missed_though_it_is_not_required(leaderboard):
    question = bfcl_model.load(leaderboard, "simple")[0]
    (wanted,) = question.wanted
    call = ToolCall(id="call_0", name="shop_order_status", arguments={})
    schema = {**question.tools[0].parameters, "required": []}
    assert bfcl_model.wrong_call(call, wanted, schema) == "'order_id' is missing"


def test_several_calls_may_come_in_any_order(tmp_path):
    calls = [{"shop.order_status": {"order_id": [number]}} for number in (1, 2)]
    write(tmp_path / "BFCL_v4_parallel.json", entry(0, "Orders 1 and 2?", ORDER_TOOL))
    write(
        tmp_path / "possible_answer" / "BFCL_v4_parallel.json",
        {"id": "shop_0", "ground_truth": calls},
    )
    (question,) = bfcl_model.load(tmp_path, "parallel")

    def judge(*numbers):
        made = (
            ToolCall(id=f"call_{i}", name="shop_order_status", arguments={"order_id": number})
            for i, number in enumerate(numbers)
        )
        return bfcl_model.failing(AssistantMessage(calls=tuple(made)), question)

    assert judge(1, 2) is None
    assert judge(2, 1) is None
    assert judge(1, 1) == "'order_id' is 1"


def test_where_nothing_fits_words_are_right_and_a_call_is_not_even_a_broken_one(leaderboard):
    (question,) = bfcl_model.load(leaderboard, "irrelevance")
    call = ToolCall(id="call_0", name="shop_find_tables", arguments={})
    broken = InvalidCall(id="call_0", raw="[shop_find", code="truncated", message="Cut off.")
    assert bfcl_model.failing(AssistantMessage(text="I can't sing."), question) is None
    assert bfcl_model.failing(AssistantMessage(calls=(call,)), question) is not None
    assert bfcl_model.failing(AssistantMessage(invalid=broken), question) is not None


def test_a_limit_takes_from_all_of_a_file():
    assert bfcl_model.evenly(range(10), 3) == [0, 3, 6]
    assert bfcl_model.evenly(range(3), 10) == bfcl_model.evenly(range(3), None) == [0, 1, 2]


async def test_the_script_asks_a_model_and_prints_the_table(leaderboard, cria, capsys, monkeypatch):
    monkeypatch.setenv("CORRAL_BFCL_DIR", str(leaderboard))
    await bfcl_model.run(bfcl_model.read_options([cria.name, "--show"]))
    out = capsys.readouterr().out
    rows = re.findall(r"^\| (\w+) \| (with|without) \| (\d+) \| ([\d.]+) \|", out, re.MULTILINE)
    assert [row[:3] for row in rows] == [
        ("simple", "without", "3"),
        ("simple", "with", "3"),
        ("irrelevance", "without", "1"),
        ("irrelevance", "with", "1"),
    ]
    failures = re.findall(r"^- (shop_\d), (\w+) grammar: ", out, re.MULTILINE)
    right = sum(round(int(of) * float(percent) / 100) for _, _, of, percent in rows)
    assert right + len(failures) == 8
    # That order's number is asked for in every example; no answer fits the other's.
    assert "shop_0" not in dict(failures)
    assert [way for failed, way in failures if failed == "shop_2"] == ["without", "with"]


async def test_one_way_of_asking_can_be_chosen(leaderboard, cria, capsys):
    arguments = [cria.name, "--data", str(leaderboard), "--only", "simple", "--limit", "1"]
    await bfcl_model.run(bfcl_model.read_options([*arguments, "--without-grammar"]))
    out = capsys.readouterr().out
    assert "| simple | without | 1 | 100.0 |" in out
    assert "| with |" not in out


def test_a_folder_without_the_files_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        bfcl_model.read_options(["cria", "--data", str(tmp_path)])
    assert "no file of the category 'simple'" in capsys.readouterr().err
