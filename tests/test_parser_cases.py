"""What the parser makes of each way in which models write calls, and of what only looks like one.

The cases are in `data/parse_cases_own.jsonl`; another corpus of the same form can be named in the
environment variable `CORRAL_PARSE_CASES`. Each case is read whole, one character at a time, cut in
two at every place, and in strict mode.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.messages import AssistantMessage, ToolSpec
from corral.model_runtime.parser import (
    ERROR_STAGES,
    INFORMATIONAL,
    OutputParser,
    ParserOptions,
    TextDelta,
    parse_output,
    pieces_from_text,
)
from corral.model_runtime.runtime import Piece

Case = dict[str, Any]


DATA = Path(__file__).parent / "data"
LIBRARY = json.loads((DATA / "parse_cases_tools.json").read_text())
"""What is offered in the cases that don't say."""


def load(path: Path) -> list[Case]:
    cases = [json.loads(line) for line in path.read_text().splitlines() if line]
    return [case for case in cases if case["class"] != "prompt"]


OWN = load(DATA / "parse_cases_own.jsonl")
OTHER = load(Path(os.environ["CORRAL_PARSE_CASES"])) if "CORRAL_PARSE_CASES" in os.environ else []

every_case = pytest.mark.parametrize("case", [*OWN, *OTHER], ids=lambda case: case["id"])


def tools_of(case: Case) -> list[ToolSpec]:
    tools = [
        ToolSpec(name=tool, description="")
        if isinstance(tool, str)
        else ToolSpec(name=tool["name"], description="", parameters=tool["parameters"])
        for tool in case.get("tools", LIBRARY)
    ]
    if "code_interpreter" in case.get("builtin", ()):
        tools.append(ToolSpec(name="code_interpreter", description="", kind="code_interpreter"))
    return tools


def options_of(case: Case, *, strict: bool = False) -> ParserOptions:
    given = case.get("options") or {}
    return ParserOptions(
        strict=strict,
        coerce=given.get("coerce", True),
        validate=given.get("validate", True) not in (False, "off"),
        parallel=given.get("parallel", given.get("parallel_tool_calls", True)),
        max_calls=given.get("max_calls", 16),
        enabled=given.get("tool_choice") != "none" and not given.get("response_format"),
        builtins=tuple(name for name in case.get("builtin", ()) if name != "code_interpreter"),
    )


def pieces_of(case: Case) -> list[Piece]:
    if case.get("special_as_text"):
        return [Piece(case["output"])]
    return pieces_from_text(case["output"])


def stream(case: Case, pieces: Iterable[Piece]) -> tuple[AssistantMessage, str]:
    """The message, and the text that was yielded on the way."""
    parser = OutputParser(tools_of(case), options=options_of(case), new_id=lambda: "id")
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    message = parser.finish("max_tokens" if case.get("stop") == "length" else "unknown")
    texts = [delta.text for delta in [*deltas, *parser.deltas] if isinstance(delta, TextDelta)]
    return message, "".join(texts)


def whole(case: Case, *, strict: bool = False) -> AssistantMessage:
    return parse_output(
        pieces_of(case),
        tools=tools_of(case),
        stop_reason="max_tokens" if case.get("stop") == "length" else "unknown",
        options=options_of(case, strict=strict),
        new_id=lambda: "id",
    )


def outcome(message: AssistantMessage) -> str:
    """What the message came to, as JSON: 1 and 1.0 and true are three things there."""
    if message.invalid is not None:
        code = message.invalid.code
        found: dict[str, Any] = {"error": code, "stage": ERROR_STAGES[code]}
    else:
        calls = [{"name": call.name, "arguments": call.arguments} for call in message.calls]
        found = {"calls": calls, "text": message.text}
    return json.dumps(found, sort_keys=True)


@every_case
def test_the_message_holds_what_was_meant(case: Case) -> None:
    message = whole(case)
    assert outcome(message) == json.dumps(case["expect"], sort_keys=True)
    mended = [*case.get("warnings", ()), *filter(None, [case.get("hint")])]
    assert {*message.warnings} - {"duplicate_call"} == {*mended}


@every_case
def test_strict_mode_refuses_what_would_have_to_be_mended(case: Case) -> None:
    message = whole(case, strict=True)
    if case["class"] == "repair":
        assert message.invalid is not None and not message.calls
        assert message.invalid.code in {*case["warnings"]} - INFORMATIONAL
        assert message.invalid.code in ERROR_STAGES
    else:
        assert outcome(message) == outcome(whole(case))


@every_case
def test_nothing_of_a_broken_call_is_lost(case: Case) -> None:
    message = whole(case)
    if message.invalid is None:
        return
    assert message.invalid.raw in case["output"]
    assert message.invalid.message.strip()
    said = message.text + "<|python_tag|>" * message.invalid.tagged + message.invalid.raw
    assert case["output"].startswith(said)


def cuts(pieces: list[Piece]) -> Iterator[list[Piece]]:
    for at, piece in enumerate(pieces):
        for cut in range(1, len(piece.text)) if not piece.is_special else ():
            halves = [Piece(piece.text[:cut]), Piece(piece.text[cut:])]
            yield [*pieces[:at], *halves, *pieces[at + 1 :]]


@every_case
def test_it_does_not_matter_how_the_output_is_cut_into_pieces(case: Case) -> None:
    pieces = pieces_of(case)
    expected, text = stream(case, pieces)
    assert expected == whole(case)
    chars = [
        part
        for piece in pieces
        for part in ([piece] if piece.is_special else map(Piece, piece.text))
    ]
    assert stream(case, chars) == (expected, text)
    if len(case["output"]) < 500:
        for halves in cuts(pieces):
            assert stream(case, halves) == (expected, text)
    if expected.invalid is not None or not expected.calls:
        assert text == expected.text


@pytest.mark.parametrize(
    "case", [case for case in [*OWN, *OTHER] if "chunks" in case], ids=lambda case: case["id"]
)
def test_the_pieces_of_a_real_stream_give_the_same_message(case: Case) -> None:
    plain = bool(case.get("special_as_text"))
    pieces = [
        piece
        for chunk in case["chunks"]
        for piece in ([Piece(chunk)] if plain else pieces_from_text(chunk))
    ]
    message, _ = stream(case, pieces)
    assert outcome(message) == json.dumps(case["expect"], sort_keys=True)
    held = case.get("stream", {}).get("hold_chars")
    if held is not None:
        parser = OutputParser(tools_of(case), options=options_of(case))
        fed = told = 0
        for char in case["output"]:
            fed += 1
            told += sum(len(d.text) for d in parser.feed(char) if isinstance(d, TextDelta))
            assert fed - told <= held
