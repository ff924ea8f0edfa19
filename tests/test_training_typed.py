"""Typed tools of the training data: every call fits its schema and says what the request says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from math import prod
from random import Random

import pytest
from jsonschema import Draft202012Validator

from corral.messages import AssistantMessage, ToolSpec, UserMessage
from corral.model_runtime.formats import render_prompt
from corral.model_runtime.parser import parse_output
from training.conversations import Tree, cria_trees
from training.data.core import FOLDER
from training.data.everyday import Entry, draw_request, entries
from training.data.requests import dress
from training.data.spoken import grammatical, said

TYPED = [entry for entry in entries() if entry.domain]
OTHER_FORM = re.compile(r"(few|money|rate|isodate|usdate|clock24|point|meters|named)\b")
"""Kinds of value that a user says in another form than the tool takes them."""


def typed_trees(most: int) -> list[Tree]:
    """The first trees of training whose tools are all typed ones."""
    descriptions = {text for entry in TYPED for text in entry.descriptions}
    found = (
        tree
        for tree in cria_trees(8)
        if tree.tools and all(tool.description in descriptions for tool in tree.tools)
    )
    return list(islice(found, most))


def forms(ask: str) -> int:
    """How many requests a wording stands for, apart from their values."""
    parts = re.findall(r"\[([^\[\]]*)\]", ask)
    return prod(len(re.split(r"\|(?![^{]*\})", part)) for part in parts)


def test_there_are_many_typed_tools_of_many_domains_each_with_several_wordings() -> None:
    assert len(TYPED) >= 150
    assert len({entry.domain for entry in TYPED}) >= 25
    for entry in TYPED:
        assert len(entry.names) >= 2, entry.name
        assert len(entry.descriptions) >= 2, entry.name
        assert 2 <= len(entry.arguments) <= 8, entry.name
        assert sum(forms(ask) for ask in entry.asks) >= 8, entry.name
        assert entry.opens or all(len(text.split()) >= 8 for text in entry.descriptions), entry.name
        assert all(argument.text for argument in entry.arguments), entry.name
        assert entry.opens or not entry.replies, entry.name
    assert sum("." in name for entry in TYPED for name in entry.names) > 150


def test_topics_tell_the_tools_of_a_domain_apart() -> None:
    topics = [(entry.domain, entry.topic) for entry in TYPED]
    assert len(topics) == len(set(topics))


def wordings() -> Iterator[tuple[Entry, str]]:
    return ((entry, ask) for entry in TYPED for ask in entry.asks)


def test_every_wording_gives_a_call_that_fits_the_tools_schema() -> None:
    rng = Random(4)
    for entry, ask in wordings():
        one = dress(rng, entry)
        Draft202012Validator.check_schema(one.spec.parameters)
        request = draw_request(rng, "train", entry, ask)
        assert not re.search(r"[{}]", request.text), request.text
        assert len(request.calls) == 1
        name, arguments = one.call(request.calls[0])
        assert name == one.spec.name
        Draft202012Validator(one.spec.parameters).validate(arguments)


def test_every_value_of_a_call_stands_in_the_request() -> None:
    rng = Random(6)
    for entry, ask in wordings():
        request = draw_request(rng, "train", entry, ask)
        text = request.text.lower()
        for argument in entry.arguments:
            given = request.calls[0].get(argument.name)
            if given is None or f"{{{argument.name}=" in ask or OTHER_FORM.match(argument.kind):
                continue
            for one in given if isinstance(given, list) else [given]:
                assert str(one).lower().replace("_", " ") in text.replace("_", " "), request


def test_a_nested_object_is_declared_and_filled() -> None:
    entry = next(entry for entry in TYPED if entry.objects)
    (owner,) = entry.objects
    for seed in range(6):
        rng = Random(seed)
        one = dress(rng, entry)
        properties = one.spec.parameters["properties"]
        assert isinstance(properties, dict)
        inner = properties[owner]
        assert isinstance(inner, dict)
        assert inner["type"] == "object"
        assert inner["description"] == entry.objects[owner]
        _, arguments = one.call(draw_request(rng, "train", entry, entry.asks[0]).calls[0])
        given = arguments[owner]
        assert isinstance(given, dict)
        assert given.keys() <= inner["properties"].keys()


def test_dotted_names_are_rendered_and_read_back() -> None:
    seen = 0
    for tree in typed_trees(20):
        for branch in tree.branches:
            last = branch[-1]
            if not isinstance(last, AssistantMessage) or not any("." in c.name for c in last.calls):
                continue
            prompt = str(render_prompt([UserMessage(content="?"), last], tools=tree.tools))
            turns = (turn.partition("<|eot_id|>")[0] for turn in prompt.split("<|end_header_id|>"))
            call = next(turn for turn in turns if turn.strip().startswith("["))
            read = parse_output(call.strip(), tools=tree.tools)
            assert not read.warnings
            assert [(c.name, c.arguments) for c in read.calls] == [
                (c.name, c.arguments) for c in last.calls
            ]
            seen += 1
    assert seen > 10


def test_most_branches_end_with_the_call_and_a_fourth_is_for_something_else() -> None:
    branches = [branch for tree in typed_trees(160) for branch in tree.branches]
    called = sum(isinstance(b[-1], AssistantMessage) and bool(b[-1].calls) for b in branches)
    refused = 0
    for branch in branches:
        last = branch[-1]
        if len(branch) == 2 and isinstance(last, AssistantMessage) and not last.calls:
            refused += 1
    assert called / len(branches) > 0.5
    assert 0.18 < refused / len(branches) < 0.45


def test_a_fifth_of_the_trees_is_typed() -> None:
    descriptions = {text for entry in TYPED for text in entry.descriptions}
    trees = list(islice(cria_trees(2), 150))
    offered: list[tuple[ToolSpec, ...]] = [tree.tools for tree in trees]
    typed = sum(bool(t) and all(one.description in descriptions for one in t) for t in offered)
    assert 0.12 < typed / len(trees) < 0.3


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("isodate", r"\d{4}-\d{2}-\d{2}"),
        ("usdate", r"\d{2}/\d{2}/\d{4}"),
        ("clock24", r"\d{2}:\d{2}"),
        ("named(lang_code)", r"[a-z]{2}"),
        ("named(money_code)", r"[A-Z]{3}"),
        ("few(1,6)", r"[1-6]"),
        ("rate(1,15)", r"0\.\d{1,4}"),
        ("money(100,90000)", r"\d{3,5}"),
        ("meters(2,4000)", r"\d{1,4}"),
    ],
)
def test_what_is_said_in_another_form_is_given_as_the_tool_wants_it(kind: str, form: str) -> None:
    rng = Random(kind)
    forms = [said(rng, "train", kind) for _ in range(60)]
    assert all(one and re.fullmatch(form, str(one[0])) for one in forms), forms
    assert any(one and one[1] != str(one[0]) for one in forms)


def test_a_second_date_comes_after_the_first() -> None:
    rng = Random(1)
    for _ in range(50):
        later = said(rng, "train", "isodate", after="2025-12-20")
        assert later and str(later[0]) > "2025-12-20"


def test_articles_and_plurals_fit_the_values() -> None:
    assert grammatical("a accountant for 1 hours and one people") == (
        "an accountant for 1 hour and one person"
    )
    assert grammatical("the 22th and the 113th of a unit, 2.1 hours, 21 nights, a one") == (
        "the 22nd and the 113th of a unit, 2.1 hours, 21 nights, a one"
    )


def test_no_wording_stands_twice_in_the_banks() -> None:
    asks = [ask for entry in TYPED for ask in entry.asks]
    assert len(asks) == len(set(asks))
    assert {path.name for path in FOLDER.glob("typed*.txt")} >= {"typed1.txt", "typed4.txt"}


def test_what_is_optional_is_given_where_it_is_said_and_only_there() -> None:
    rng = Random(3)
    for entry in TYPED:
        optional = {a.name for a in entry.arguments if not a.required}
        if not entry.opens or not optional:
            continue
        given = [
            optional & draw_request(rng, "train", entry, rng.choice(entry.asks)).calls[0].keys()
            for _ in range(30)
        ]
        assert set().union(*given) == optional, entry.name
        assert any(names != optional for names in given), entry.name


def test_the_parts_of_a_request_come_in_any_order_and_end_as_sentences_do() -> None:
    entry = next(entry for entry in TYPED if entry.name == "bus_ticket")
    texts = [ask.replace("[", "").replace("]", "") for ask in entry.asks]
    places = {text.find("{origin}") < text.find("{destination}") for text in texts}
    assert places == {True, False}
    for text in texts:
        assert not re.search(r"[.?!]{2}|  | [.,?!]|~", text), text
