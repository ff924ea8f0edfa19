"""The training data: calls fit their tools, programs print what is said, splits share nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest
from jsonschema import Draft202012Validator

from corral.messages import AssistantMessage, Message, ToolResult, ToolSpec, UserMessage
from corral.model_runtime.formats import render_prompt
from training.conversations import GuardExample, Tree, cria_trees, guard_examples
from training.data.arithmetic import in_order, problems
from training.data.chat import unserved, unserved_talk
from training.data.core import FOLDER, split_of
from training.data.everyday import entries
from training.data.makers import make
from training.data.missing import cut_request, missing_talk
from training.data.notes import notes_talk
from training.data.programs import run
from training.data.requests import dress, retyped
from training.data.several import several_talk
from training.distill import answerable, shortened

SPLITS = ("train", "validation", "heldout")


def trees(split: str, most: int = 60, seed: int = 3) -> list[Tree]:
    return list(islice(cria_trees(seed, split), most))


def asked(tree: Tree) -> Iterator[str]:
    for branch in tree.branches:
        yield from (m.text for m in branch if isinstance(m, UserMessage))


def called(branch: tuple[Message, ...]) -> Iterator[tuple[AssistantMessage, list[ToolResult]]]:
    """Each message with calls, and the results that stand right behind it."""
    for place, message in enumerate(branch):
        if isinstance(message, AssistantMessage) and message.calls:
            behind = branch[place + 1 : place + 1 + len(message.calls)]
            yield message, [m for m in behind if isinstance(m, ToolResult)]


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_gives_the_same_data_and_another_seed_other_data(split: str) -> None:
    assert trees(split, 10) == trees(split, 10)
    assert trees(split, 10) != trees(split, 10, seed=4)
    guarded = list(islice(guard_examples(1, split), 40))
    assert guarded == list(islice(guard_examples(1, split), 40))
    assert guarded != list(islice(guard_examples(2, split), 40))


@pytest.mark.parametrize("split", SPLITS)
def test_branches_alternate_and_end_with_the_assistant_and_every_call_has_its_result(
    split: str,
) -> None:
    for tree in trees(split):
        assert len(tree.branches) in ((8, 12) if split == "train" else (8,))
        for branch in tree.branches:
            assert isinstance(branch[0], UserMessage)
            assert isinstance(branch[-1], AssistantMessage)
            assert branch[-1].text or branch[-1].calls
            ids: list[str] = []
            for before, after in zip(branch, branch[1:], strict=False):
                cancelled = before is branch[0] and isinstance(after, UserMessage)
                assert not (
                    isinstance(before, UserMessage)
                    and not isinstance(after, AssistantMessage)
                    and not cancelled
                )
            for message, results in called(branch):
                ids += message.call_ids
                if message is branch[-1]:
                    continue  # the conversation ends with the call
                assert [r.call_id for r in results] == list(message.call_ids)
                assert [r.name for r in results] == [c.name for c in message.calls]
            assert len(ids) == len(set(ids))
            waiting = len(branch[-1].call_ids)
            assert len(ids) - waiting == sum(isinstance(m, ToolResult) for m in branch)


@pytest.mark.parametrize("split", SPLITS)
def test_every_call_is_of_an_offered_tool_and_fits_its_schema(split: str) -> None:
    for tree in trees(split, 100):
        offered: dict[str, ToolSpec] = {tool.name: tool for tool in tree.tools}
        assert len(offered) == len(tree.tools)
        for tool in tree.tools:
            Draft202012Validator.check_schema(tool.parameters)
        for branch in tree.branches:
            for message, _ in called(branch):
                for call in message.calls:
                    tool = offered[call.name]
                    if tool.kind == "code_interpreter":
                        assert list(call.arguments) == ["code"]
                        assert message.stop_reason == "end_of_message"
                        continue
                    allowed = tool.parameters["properties"]
                    assert isinstance(allowed, dict)
                    assert call.arguments.keys() <= allowed.keys()
                    Draft202012Validator(tool.parameters).validate(call.arguments)


def test_every_program_prints_the_result_that_stands_behind_it() -> None:
    ran = 0
    for tree in trees("train", 120):
        for branch in tree.branches:
            for message, results in called(branch):
                code = message.calls[0].arguments.get("code")
                if message.calls[0].name != "code_interpreter" or not isinstance(code, str):
                    continue
                if "numpy" in code:  # taken as missing, whether or not this machine has it
                    assert "ModuleNotFoundError" in str(results[0].content)
                    continue
                assert (results[0].content, results[0].is_error) == run(code)
                ran += 1
    assert ran > 150


def test_answers_to_sums_repeat_the_printed_number() -> None:
    checked = 0
    for tree in trees("train", 120):
        for branch in tree.branches:
            for place, message in enumerate(branch[:-1]):
                if not isinstance(message, ToolResult) or message.name != "code_interpreter":
                    continue
                printed, answer = str(message.content), branch[place + 1]
                if message.is_error or not re.fullmatch(r"-?[\d.]+", printed):
                    continue
                if isinstance(answer, AssistantMessage) and answer.text:
                    assert printed in answer.text
                    checked += 1
    assert checked > 100


def test_a_problems_numbers_are_all_said_and_computed_with_in_the_order_of_the_question() -> None:
    numbers = {"a": 960, "b": 12, "c": 7, "d": 5}
    for expression, asks in dict(problems()).items():
        letters = sorted(set(re.findall(r"{(\w)}", expression)))
        plain = eval(expression.format(**numbers))
        for ask in asks:
            assert sorted(re.findall(r"{(\w+)}", ask)) == letters, ask
            told = in_order(expression, ask)
            assert eval(told.format(**numbers)) == pytest.approx(plain), (ask, told)
    turned = "{c} bags of {b} nuts and {a} more"
    assert in_order("{a} + {b} * {c}", turned) == "{a} + {c} * {b}"
    assert in_order("({a} + {b}) / {c}", turned) == "({b} + {a}) / {c}"
    assert in_order("{a} / {b} / {c}", turned) == "{a} / {b} / {c}"


def test_a_follow_up_computes_with_the_number_that_an_earlier_answer_gave() -> None:
    seen, doubled = 0, {"Double that.", "double it", "and twice that?"}
    for tree in trees("train", 500):
        for branch in tree.branches:
            for place, message in enumerate(branch[1:-1], 1):
                if not isinstance(message, UserMessage) or message.text not in doubled:
                    continue
                said = [m.text for m in branch[:place] if isinstance(m, AssistantMessage)]
                call = branch[place + 1]
                assert isinstance(call, AssistantMessage)
                number = re.search(r"[\d.]+(?= \* 2)", str(call.calls[0].arguments["code"]))
                assert number
                assert any(number[0] in text for text in said)
                seen += 1
    assert seen


@pytest.mark.parametrize("split", SPLITS)
def test_no_slot_is_left_unfilled(split: str) -> None:
    for tree in trees(split, 100):
        for branch in tree.branches:
            for message in branch:
                if isinstance(message, UserMessage | AssistantMessage):
                    assert not re.search(r"\{[A-Za-z]\w*\}", message.text), message.text
    for example in islice(guard_examples(5, split), 400):
        for _, said in example.conversation:
            assert not re.search(r"\{[A-Za-z]\w*\}", said), said


def test_training_offers_no_tool_of_another_split() -> None:
    names = {entry.name: entry.split for entry in entries()}
    others = {name for entry in entries() if entry.split != "train" for name in entry.names}
    own = {name for entry in entries() if entry.split == "train" for name in entry.names}
    assert {
        "order_status",
        "convert_currency",
        "get_weather",
        "add_reminder",
        "list_reminders",
    } <= {name for name, split in names.items() if split == "train"}
    offered = {tool.name for tree in trees("train", 300) for tool in tree.tools}
    assert not offered & (others - own)


def test_held_out_requests_do_not_occur_in_training() -> None:
    trained = {text for tree in trees("train", 400) for text in asked(tree)}
    held = {text for tree in trees("heldout", 12) for text in asked(tree)}
    # Bare values that answer a question ("7", "Friday") may be alike by chance.
    both = {text for text in held & trained if len(text.split()) > 3}
    assert not both
    assert len(held) > 80


def test_held_out_wordings_of_sums_are_no_training_wordings() -> None:
    from training.data.arithmetic import wordings

    for kind in ("+", "-", "*", "/", "**", "%", "percent", "sqrt", "square", "two", "twosaid"):
        parts = [set(wordings(kind, split)) for split in SPLITS]
        assert not parts[0] & parts[2]
        assert not parts[0] & parts[1]
        assert parts[0]


def test_measured_splits_end_and_training_does_not() -> None:
    for split in ("validation", "heldout"):
        branches = sum(len(tree.branches) for tree in cria_trees(0, split))
        assert 60 <= branches <= 120
        assert 100 <= len(list(guard_examples(0, split))) <= 500
    assert len(trees("train", 300)) == 300
    with pytest.raises(ValueError, match="no split 'test'"):
        next(cria_trees(0, "test"))


@pytest.mark.parametrize("split", SPLITS)
def test_guard_verdicts_are_well_formed_and_judge_the_last_turn(split: str) -> None:
    examples: list[GuardExample] = list(islice(guard_examples(0, split), 240))
    codes: set[str] = set()
    for example in examples:
        assert example.conversation
        assert all(said for _, said in example.conversation)
        roles = [who for who, _ in example.conversation]
        assert roles[0] == "User"
        assert all(a != b for a, b in zip(roles, roles[1:], strict=False))
        assert re.fullmatch(r"safe|unsafe\nS\d{1,2}(,S\d{1,2})*", example.verdict)
        codes |= set(re.findall(r"S\d+", example.verdict))
    assert codes <= {f"S{n}" for n in range(1, 14)}
    safe = sum(example.verdict == "safe" for example in examples) / len(examples)
    assert 0.45 < safe < 0.65
    assert {example.conversation[-1][0] for example in examples} == {"User", "Agent"}
    if split == "train":
        many = islice(guard_examples(0, split), 1500)
        assert {f"S{n}" for n in range(1, 14)} == {
            c for e in many for c in re.findall(r"S\d+", e.verdict)
        }


def test_every_name_belongs_to_one_split_for_ever() -> None:
    # These are fixed: if they moved, the figures of an earlier adapter would mean nothing.
    names = ("play_music", "send_message", "set_alarm")
    assert [split_of(name) for name in names] == ["train", "heldout", "validation"]


def test_built_in_tools_are_announced_and_called_in_metas_own_form() -> None:
    found = 0
    for tree in trees("train", 600):
        if not any(tool.kind == "builtin" for tool in tree.tools):
            assert tree.format == "llama3.2"
            continue
        for branch in tree.branches:
            for message, _ in called(branch):
                shown = str(
                    render_prompt(
                        [UserMessage(content="?"), message], tools=tree.tools, format=tree.format
                    )
                )
                assert "Tools: " in shown
                query = json.dumps(message.calls[0].arguments["query"], ensure_ascii=False)
                said = f"<|python_tag|>{message.calls[0].name}.call(query={query})<|eom_id|>"
                assert said in shown
                found += 1
    assert found >= 3


def spoken_before(branch: tuple[Message, ...], last: Message) -> str:
    """All that the user said, and all that tools returned, before a message."""
    before = branch[: branch.index(last)]
    said = [m.text for m in before if isinstance(m, UserMessage)]
    return "\n".join((*said, *(str(m.content) for m in before if isinstance(m, ToolResult))))


def functions(tree: Tree) -> dict[str, ToolSpec]:
    return {tool.name: tool for tool in tree.tools if tool.kind == "function"}


def test_a_value_that_is_missing_is_asked_for_and_the_call_then_has_early_and_late_ones() -> None:
    rng, finished, twins = Random(4), 0, 0
    pool = [entry for entry in entries() if entry.split == "train" and not entry.domain]
    for entry in rng.sample(pool, 120):
        one = dress(rng, entry)
        ask = rng.choice(entry.asks)
        cut = cut_request(rng, "train", entry, ask)
        if cut is None:
            continue
        for name, said, phrase in cut.parts:
            assert entry.argument(name).required
            assert said.lower() not in cut.short.lower()
            assert said in cut.full and said in phrase
        talk = missing_talk(rng, "train", one)
        if talk is None:
            continue
        question = talk.messages[1]
        assert isinstance(question, AssistantMessage) and question.text and not question.calls
        twins += talk.twin is not None
        if len(talk.messages) > 3:
            calls = [m for m in talk.messages if isinstance(m, AssistantMessage) and m.calls]
            Draft202012Validator(one.spec.parameters).validate(calls[0].calls[0].arguments)
            finished += 1
    assert finished > 30
    assert twins > 20


def test_no_value_of_a_call_was_never_said() -> None:
    checked = 0
    for tree in trees("train", 300):
        free = {
            (tool.name, name)
            for tool in functions(tree).values()
            for name, schema in tool.parameters.get("properties", {}).items()  # type: ignore[union-attr]
            if isinstance(schema, dict) and schema.get("type") == "string" and "enum" not in schema
        }
        for branch in tree.branches:
            for message, _ in called(branch):
                said = spoken_before(branch, message).lower()
                for call in message.calls:
                    for name, given in call.arguments.items():
                        # Codes have a digit: no wording of the bank stands for one.
                        if (call.name, name) in free and re.search(r"\w-\d|@", str(given)):
                            known = str(given).lower() in said
                            assert known or re.fullmatch(r"[-\d]{10}", str(given)), (given, said)
                            checked += 1
    assert checked > 60


def test_missing_values_and_several_calls_are_frequent_but_not_the_rule() -> None:
    branches = [b for t in trees("train", 300, seed=6) if functions(t) for b in t.branches]
    asks = sum(isinstance(b[1], AssistantMessage) and "?" in b[1].text for b in branches)
    several = [max((len(m.calls) for m, _ in called(b)), default=0) for b in branches]
    assert 0.08 < asks / len(branches) < 0.2
    assert 0.09 < sum(count > 1 for count in several) / len(branches) < 0.2
    assert sum(count > 2 for count in several) > 20


def test_several_requests_make_several_different_calls_that_fit_their_tools() -> None:
    rng, made = Random(8), 0
    pool = [entry for entry in entries() if entry.split == "train" and not entry.domain]
    for _ in range(150):
        dressed = [dress(rng, entry) for entry in rng.sample(pool, 3)]
        talk = several_talk(rng, "train", dressed)
        if talk is None:
            continue
        message = talk.messages[1]
        assert isinstance(message, AssistantMessage)
        assert 2 <= len(message.calls) <= 4
        shown = [(call.name, json.dumps(call.arguments)) for call in message.calls]
        assert len(set(shown)) == len(shown)
        for call in message.calls:
            schema = next(d.spec.parameters for d in dressed if d.spec.name == call.name)
            Draft202012Validator(schema).validate(call.arguments)
        assert not re.search("[\x01-\x03]", talk.opening)
        made += 1
    assert made > 100


def test_the_same_argument_is_a_number_in_one_prompt_and_a_string_in_another() -> None:
    rng = Random(2)
    order = next(entry for entry in entries() if entry.name == "order_status")
    types = {retyped(rng, order).arguments[0].type for _ in range(40)}
    assert types == {"integer", "string"}


def test_conversations_render_without_marks_of_the_generator() -> None:
    for tree in trees("train", 60, seed=9):
        for branch in tree.branches:
            shown = str(render_prompt(branch, tools=tree.tools, format=tree.format))
            assert not re.search("[\x01-\x03]", shown)
            for message in branch:
                if isinstance(message, UserMessage):
                    assert message.text.strip() == message.text and message.text


def test_the_users_files_are_searched_and_the_answer_is_what_stands_there() -> None:
    named = {entry.name: entry for entry in entries()}
    rng = Random(2)
    read = 0
    for _ in range(60):
        finder, reader = (dress(rng, named[name]) for name in ("search_documents", "read_file"))
        talk = notes_talk(rng, "train", finder, reader)
        if talk is None:
            continue
        first = talk.messages[1]
        assert isinstance(first, AssistantMessage)
        assert [call.name for call in first.calls] == [finder.spec.name]
        found = " ".join(str(m.content) for m in talk.messages if isinstance(m, ToolResult))
        answer = talk.messages[-1]
        assert isinstance(answer, AssistantMessage)
        if found != "[]":
            assert set(re.findall(r"\d{2,}", answer.text)) <= set(re.findall(r"\d{2,}", found))
        read += len(talk.messages) > 4
    assert read > 10


def test_what_no_tool_serves_is_of_no_tools_topic() -> None:
    topics = {entry.topic for entry in entries()}
    rng = Random(1)
    asked = {unserved_talk(rng, "train", ()).opening for _ in range(200)}
    assert len(asked) > 120
    assert not topics & {topic for _, topic in unserved("train", python=False)}


def test_after_a_cancelled_request_the_last_one_is_answered() -> None:
    seen = 0
    for tree in trees("train", 150):
        openings = {branch[0].content for branch in tree.branches}
        for branch in tree.branches:
            if isinstance(branch[1], UserMessage):
                assert branch[0].content != branch[1].content
                assert isinstance(branch[2], AssistantMessage)
                seen += 1
        assert len(openings) > 4
    assert 10 < seen < 60


def test_words_that_give_no_value_are_asked_about_as_a_missing_one_is() -> None:
    rng = Random(4)
    entry = next(entry for entry in entries() if entry.name == "get_weather")
    ask = "Give me the {days} day forecast for {city}."
    shorts = {cut.short for _ in range(40) if (cut := cut_request(rng, "train", entry, ask))}
    vague = [short for short in shorts if not re.search(r"forecast\.$", short)]
    assert vague and len(vague) < len(shorts)


def test_slots_of_a_task_are_drawn_by_their_kinds() -> None:
    slots = make(Random(1), "train", "slots a=int(2,9) b=price(1,30) who=person")
    assert 2 <= int(slots["a"]) <= 9
    assert 1 <= float(slots["b"]) <= 30
    assert slots["who"].istitle()


def test_what_the_base_made_up_is_whole_and_asked_only_where_nothing_is_offered() -> None:
    lines = (FOLDER / "knowledge_invented.txt").read_text(encoding="utf-8").splitlines()[1:]
    made_up = dict(line.split(" => ") for line in lines)
    assert all(answerable(question) for question in made_up)
    assert all(answer == shortened(answer, words=42, sentences=2) for answer in made_up.values())
    met = 0
    for tree in trees("train", 120):
        some = made_up.keys() & set(asked(tree))
        met += len(some)
        assert not some or not tree.tools
    assert met > 10


@pytest.mark.parametrize(
    ("question", "kept"),
    [
        ("What is a lighthouse for?", True),
        ("Explain how rain forms.", True),
        ("What is the weather in Bonn today?", False),
        ("What is 7 times 8?", False),
        ("What is in the following list?", False),
        ("Can you write a Python function?", False),
        ("Why do cats purr? And dogs?", False),
        ("What is a lighthouse", False),
        ("Why?", False),
    ],
)
def test_only_short_questions_of_general_knowledge_are_kept(question: str, kept: bool) -> None:
    assert answerable(question) is kept


@pytest.mark.parametrize(
    ("answer", "short"),
    [
        (
            "It warns ships. It stands at the coast. It is tall.",
            "It warns ships. It stands at the coast.",
        ),
        ("It warns ships.\n\nIt stands there.", "It warns ships."),
        ("It warns ships, day and", ""),
        ("One / two.", ""),
        (f"It warns. {'very ' * 40}much.", "It warns."),
        (f"{'very ' * 42}much.", ""),
    ],
)
def test_an_answer_is_cut_behind_a_sentence(answer: str, short: str) -> None:
    assert shortened(answer, words=42, sentences=2) == short
