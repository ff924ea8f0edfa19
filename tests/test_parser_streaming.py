"""What leaves the parser while the model still speaks, and what waits."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.messages import AssistantMessage, StopReason, ToolSpec
from corral.model_runtime.parser import (
    ArgumentsDelta,
    CallStarted,
    Delta,
    OutputParser,
    TextDelta,
)
from corral.model_runtime.runtime import Piece

TOOLS = [
    ToolSpec(name="ping", description=""),
    ToolSpec(
        name="water",
        description="",
        parameters={"type": "object", "properties": {"bed": {"type": "string"}}},
    ),
]
TAG = Piece("<|python_tag|>", is_special=True)


def text_of(deltas: Iterable[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def stream(
    pieces: Iterable[Piece], stop: StopReason = "unknown"
) -> tuple[AssistantMessage, list[Delta]]:
    parser = OutputParser(TOOLS, new_id=lambda: "id")
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    message = parser.finish(stop)
    return message, [*deltas, *parser.deltas]


@pytest.mark.parametrize(
    "text",
    [
        "Hello there, no tools needed.",
        "42 is the answer; {not a call}",
        "(see below)",
        "Certainly! [ping()] would do it.",
        "- one\n- two\n```\ncode\n```",
    ],
)
def test_prose_leaves_the_moment_it_comes(text: str) -> None:
    parser = OutputParser(TOOLS)
    for char in text:
        assert parser.feed(Piece(char)) == [TextDelta(char)]
    assert parser.finish("end_of_turn").text == text
    assert parser.deltas == ()


@pytest.mark.parametrize(
    ("begun", "decided"),
    [
        ("  ", "Yes"),
        ("[", "1] Smith"),
        ("[ping", " me]"),
        ("{", "i: 1}"),
        ("{", "get(x)}"),
        ("<", "br>"),
        ("<function", ">"),
        ("`", "code`"),
        ("```python\n", "import os"),
        ("pi", "e"),
        ("ping", " is a tool"),
        ("[see(", "'a')"),
        ('{"answer": {"name": "ping"}', "}"),
    ],
)
def test_what_may_be_a_call_waits_until_it_is_plain_that_it_is_none(
    begun: str, decided: str
) -> None:
    parser = OutputParser(TOOLS)
    for char in begun:
        assert parser.feed(Piece(char)) == []
    assert text_of(parser.feed(Piece(decided))) == begun + decided
    assert parser.feed(Piece(" [ping()]")) == [TextDelta(" [ping()]")]


def test_prose_before_a_tag_leaves_and_the_call_does_not() -> None:
    parser = OutputParser(TOOLS)
    assert parser.feed(Piece("One moment.")) == [TextDelta("One moment.")]
    assert parser.feed(TAG) == []
    assert text_of(parser.feed(Piece('{"name": "ping", "parameters": {}}'))) == ""
    message = parser.finish("end_of_message")
    assert message.text == "One moment."
    assert [call.name for call in message.calls] == ["ping"]
    assert text_of(parser.deltas) == ""


@pytest.mark.parametrize(
    ("output", "arguments"),
    [
        ("[water(bed='roses'), ping()]", ["bed='roses'", ""]),
        (
            '{"name": "water", "parameters": {"bed": "roses"}}; {"name": "ping", "parameters": {}}',
            ['{"bed": "roses"}', "{}"],
        ),
        (
            '[{"name": "water", "parameters": {"bed": "[{\\""}}, '
            '{"name": "ping", "parameters": {}}]',
            ['{"bed": "[{\\""}', "{}"],
        ),
        (
            '{"type": "function", "function": {"name": "water", "parameters": {"bed": "x"}}}'
            '{"type": "function", "function": {"name": "ping", "parameters": {}}}',
            ['{"bed": "x"}', "{}"],
        ),
        (
            '<function=water>{"bed": "x"}</function><function=ping>{}</function>',
            ['{"bed": "x"}', "{}"],
        ),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls_are_told_of_while_they_are_written(
    output: str, arguments: list[str], size: int
) -> None:
    pieces = [Piece(output[at : at + size]) for at in range(0, len(output), size)]
    message, deltas = stream(pieces, "end_of_turn")
    assert [call.name for call in message.calls] == ["water", "ping"]
    started = [delta for delta in deltas if isinstance(delta, CallStarted)]
    assert started == [CallStarted(0, "water"), CallStarted(1, "ping")]
    told = ["", ""]
    for delta in deltas:
        if isinstance(delta, ArgumentsDelta):
            told[delta.index] += delta.text
    assert told == arguments


def test_every_call_of_the_message_has_been_told_of_by_its_end() -> None:
    message, deltas = stream([Piece("ping()\nwater(bed='x')")])
    assert len(message.calls) == 2
    assert deltas == [CallStarted(0, "ping"), CallStarted(1, "water")]


def test_a_call_of_what_was_not_offered_is_not_told_of() -> None:
    message, deltas = stream([Piece("[burn(bed='roses')]")])
    assert message.invalid is not None
    assert deltas == []


def test_a_call_that_is_cut_short_was_only_provisional() -> None:
    message, deltas = stream([Piece("[water(bed='ro")], "max_tokens")
    assert CallStarted(0, "water") in deltas
    assert message.calls == ()
    assert message.invalid is not None and message.invalid.code == "truncated"


def test_the_end_token_says_why_the_model_stopped() -> None:
    call, end = Piece('{"name": "ping", "parameters": {}'), Piece("<|eom_id|>", is_special=True)
    message, _ = stream([call, end], "max_tokens")
    assert message.stop_reason == "end_of_message"
    assert message.warnings == ("missing_closing_brace",)
    assert stream([call], "max_tokens")[0].calls == ()


def test_finishing_twice_changes_nothing() -> None:
    parser = OutputParser(TOOLS)
    parser.feed(Piece("[ping()]"))
    message = parser.finish("end_of_turn")
    assert parser.feed(Piece("more")) == []
    assert parser.finish("max_tokens") is message


@pytest.mark.parametrize(
    "text",
    [
        "[water(bed='Rosé 🌹, naïve', note='日本')]",
        '{"name": "water", "parameters": {"bed": "🌹\\u00e9"}}',
        "Grüße, 世界! 🌍",
        '<function=water>{"bed": "🌹"}</function>',
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_bytes_may_be_cut_inside_a_character(text: str, size: int) -> None:
    data = text.encode()
    whole, said = stream([Piece(text)])
    parser = OutputParser(TOOLS, new_id=lambda: "id")
    deltas = [
        delta for at in range(0, len(data), size) for delta in parser.feed(data[at : at + size])
    ]
    assert parser.finish() == whole
    assert text_of([*deltas, *parser.deltas]) == text_of(said)


def test_a_character_that_comes_in_two_halves_is_put_together() -> None:
    parser = OutputParser(TOOLS, new_id=lambda: "id")
    for piece in ("[water(bed='\ud83c", "\udf39')]"):
        parser.feed(piece)
    (call,) = parser.finish().calls
    assert call.arguments == {"bed": "🌹"}


@pytest.mark.parametrize("broken", [b"caf\xc3", b"\xff!", b"\xf0\x9f\x8c"])
def test_bytes_that_are_no_text_are_replaced_in_prose_and_refused_in_calls(broken: bytes) -> None:
    parser = OutputParser(TOOLS)
    said = text_of([delta for byte in broken for delta in parser.feed(bytes([byte]))])
    message = parser.finish()
    assert said + text_of(parser.deltas) == message.text
    assert "\ufffd" in message.text
    parser = OutputParser(TOOLS)
    parser.feed(b"[water(bed='" + broken + b"')]")
    invalid = parser.finish().invalid
    assert invalid is not None and invalid.code == "invalid_unicode"


def test_a_replacement_character_that_the_model_wrote_is_a_character_like_any_other() -> None:
    parser = OutputParser(TOOLS)
    parser.feed("[water(bed='\ufffd')]".encode())
    (call,) = parser.finish().calls
    assert call.arguments == {"bed": "\ufffd"}


PARTS = st.sampled_from(
    """{ } [ ] ( ) " ' \\ ; , : = < > ``` ping ping( water( bed= bed='x' "name" "parameters" "ping"
    {} {"bed":"x"} [ping()] {"name":"ping","parameters":{}} {"x":1} <function= <function=ping>
    </function> null 1 -2.5 hello \\ud83d .call( ```json""".split()
    + [" ", "\n", "; ", "\n```", "Hello there. "]
)
PIECES = st.lists(
    st.one_of(
        PARTS.map(Piece),
        PARTS.map(Piece),
        PARTS.map(Piece),
        st.sampled_from(
            [
                "<|python_tag|>",
                "<|eot_id|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|image|>",
            ]
        ).map(lambda name: Piece(name, is_special=True)),
    ),
    max_size=9,
)


@settings(deadline=None)
@given(
    PIECES, st.lists(st.integers(1, 9)), st.sampled_from(["end_of_turn", "unknown", "max_tokens"])
)
def test_pieces_of_any_size_give_the_same_message(
    pieces: list[Piece], sizes: list[int], stop: StopReason
) -> None:
    message, deltas = stream(pieces, stop)
    again: list[Piece] = []
    for piece in pieces:
        start = 0
        while start < len(piece.text):
            size = (
                len(piece.text) if piece.is_special else sizes[start % len(sizes)] if sizes else 1
            )
            again.append(Piece(piece.text[start : start + size], piece.is_special))
            start += size
    message_again, deltas_again = stream(again, stop)
    assert message_again == message
    assert text_of(deltas_again) == text_of(deltas)
    if not message.calls:
        assert text_of(deltas) == message.text
    else:
        assert text_of(deltas).split() == message.text.split()
