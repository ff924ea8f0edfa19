"""Feeds the parser ten million bytes of what a model might write, and of what none would.

    python benchmarks/parser_fuzz.py [--bytes 10000000] [--seed 1]

Half of the texts are calls in every way of writing them, damaged: characters struck, doubled,
swapped or replaced, stretches moved, ends cut off. The rest is words of the formats in any order,
and noise. Each is offered with other tools, options and reasons to stop. What must hold:

- nothing is raised, whatever comes;
- no call is made of a tool that was not offered, nor a call beside an error, nor more than allowed;
- a message without calls is the text, byte for byte;
- cut into other pieces, the output gives the same message;
- a message can be stored and read back.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
from collections import Counter
from time import perf_counter
from typing import Any

from corral.messages import AssistantMessage, MessageAdapter, StopReason, ToolCall, ToolSpec
from corral.model_runtime.formats.calls import encode_builtin, encode_tags, encode_typed_json
from corral.model_runtime.formats.pythonic import encode_calls
from corral.model_runtime.parser import (
    ERROR_STAGES,
    OutputParser,
    ParserOptions,
    TextDelta,
    parse_output,
)
from corral.model_runtime.runtime import Piece

NAMES = ["ping", "get_weather", "a.b", "save-note", "_x", "brave_search"]
SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}}}},
    {"type": "object", "properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}},
    {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"enum": ["x", 1, None]}}},
    {"type": "dict", "properties": {"a": {"type": "float"}}, "required": ["a"]},
    {"type": "object", "additionalProperties": {"type": "string", "format": "date"}},
    {"type": "nonsense"},
]
STOPS: list[StopReason] = ["end_of_turn", "end_of_message", "max_tokens", "cancelled", "unknown"]
CONTROL = [
    "<|python_tag|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|begin_of_text|>",
    "<|image|>",
]
WORDS = [
    *"{}[]()'\"\\,;:=<>`|.-+#*@/ \n\t0123456789eE_xé😀\u2028\x00\ud83d",
    *NAMES,
    *(f"{name}(" for name in NAMES),
    *('"name"', '"parameters"', '"arguments"', '"type"', '"function"', '"ping"', "'name'"),
    *("{}", "[]", "()", "null", "true", "None", "True", "NaN", "1e999", "-0", "0x1F", "\\u00e9"),
    *("\\ud83d", "\\n", "\\'", '\\"', "'''", '"""', "```", "```json\n", "\n```", "<function="),
    *("<function=ping>", "</function>", ".call(", "city=", "a=", "for i in x", "print(1)"),
    *('{"name": "ping", "parameters": {', "}}", "[ping()]", "; ", ", ", "Sure, ", "assistant"),
    *CONTROL,
]


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind < 2:
        return "".join(rng.choice(WORDS) for _ in range(rng.randrange(6))).replace("\ud83d", "")
    if kind < 6:
        return rng.choice([None, True, False, 0, -1, 3.5, 1e-9, 10**30, rng.randrange(10**6)])
    if kind < 8:
        return {f"k{i}": value(rng, depth + 1) for i in range(rng.randrange(4))}
    return [value(rng, depth + 1) for _ in range(rng.randrange(4))]


def valid(rng: random.Random) -> str:
    """One or more calls, in one of the ways to write them."""
    keys = ["city", "days", "a", "b", "from", "x-y", "query"]
    calls = [
        ToolCall(
            id=str(i),
            name=rng.choice(NAMES),
            arguments={key: value(rng) for key in rng.sample(keys, rng.randrange(4))},
        )
        for i in range(rng.choice([1, 1, 1, 2, 3, 20]))
    ]
    objects = [{"name": call.name, "arguments": call.arguments} for call in calls]
    way = rng.randrange(9)
    if way == 0:
        return encode_tags(calls)
    if way == 1:
        return encode_typed_json(calls)
    if way == 2:
        return encode_builtin(calls[0])
    if way == 3:
        return json.dumps(objects)
    if way == 4:
        return f"```json\n{json.dumps(objects[0])}\n```"
    if way == 5:
        return repr(objects[0])
    if way == 6:
        nested = {"type": "function", "function": {**objects[0]}}
        return json.dumps(nested)
    return encode_calls(calls)


def damaged(rng: random.Random, text: str) -> str:
    """A text with a few things wrong with it."""
    for _ in range(rng.choice([0, 1, 1, 2, 3, 8])):
        at, to = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        way = rng.randrange(6)
        if way == 0:
            text = text[:at] + text[at + 1 :]
        elif way == 1:
            text = text[:at] + rng.choice(WORDS) + text[at:]
        elif way == 2:
            text = text[:at] + rng.choice(WORDS) + text[at + 1 :]
        elif way == 3:
            text = text[:at] + text[at:to] * 2 + text[to:]
        elif way == 4:
            text = text[:at] + text[to:]
        else:
            text = text[:to]
    return text


def pieces_of(rng: random.Random) -> list[Piece]:
    """A model's output, or noise."""
    kind = rng.randrange(10)
    if kind < 6:
        text = damaged(rng, valid(rng))
    elif kind < 9:
        text = "".join(rng.choice(WORDS) for _ in range(rng.choice([3, 10, 30, 300])))
    else:
        text = rng.randbytes(rng.choice([5, 50, 500])).decode(errors="surrogateescape")
    pieces: list[Piece] = []
    if rng.random() < 0.3:
        pieces.append(Piece("<|python_tag|>", is_special=True))
    if rng.random() < 0.1:
        at = rng.randrange(len(text) + 1)
        middle = Piece(rng.choice(CONTROL), is_special=True)
        return [*pieces, Piece(text[:at]), middle, Piece(text[at:])]
    return [*pieces, Piece(text)]


def cut(rng: random.Random, pieces: list[Piece]) -> list[Piece | str | bytes]:
    """The same output in other pieces, some of them in bytes."""
    again: list[Piece | str | bytes] = []
    for piece in pieces:
        if piece.is_special:
            again.append(piece)
            continue
        text, size = piece.text, rng.choice([1, 2, 5, 17])
        try:
            data = text.encode() if rng.random() < 0.5 else None
        except UnicodeEncodeError:
            data = None
        if data is None:
            again += [text[at : at + size] for at in range(0, len(text), size)]
        else:
            again += [data[at : at + size] for at in range(0, len(data), size)]
    return again


def storable(text: str) -> str:
    """Text with what is left of halves of characters replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check(
    message: AssistantMessage, pieces: list[Piece], offered: set[str], options: ParserOptions
) -> str:
    """What the message came to, if all is as it must be."""
    assert {call.name for call in message.calls} <= offered, "a call that was not offered"
    assert not (message.calls and message.invalid), "a call beside an error"
    assert len(message.calls) <= options.max_calls, "too many calls"
    assert MessageAdapter.validate_json(message.model_dump_json()) == message, "can't be stored"
    if message.invalid is not None:
        assert message.invalid.code in ERROR_STAGES, "an unknown error code"
        assert message.invalid.message, "an error without words"
        place = message.invalid.position
        assert place is None or 0 <= place <= len(message.invalid.raw), "a place outside"
        return message.invalid.code
    if not message.calls:
        said = "".join(piece.text for piece in pieces)
        control = any(piece.is_special for piece in pieces)
        assert control or message.text == storable(said), "text was lost"
        return "text"
    if options.strict:
        assert not set(message.warnings) - {"duplicate_call"}, "mended in strict mode"
    return "calls, mended" if set(message.warnings) - {"duplicate_call"} else "calls"


def once(rng: random.Random) -> tuple[int, str]:
    """One output: its size in bytes, and what it came to."""
    names = rng.sample(NAMES, rng.choice([0, 3, 5, 6]))
    tools = [
        ToolSpec(name=name, description="", parameters=rng.choice(SCHEMAS))
        if rng.random() < 0.3
        else ToolSpec(name=name, description="")
        for name in names
    ]
    if rng.random() < 0.2:
        tools.append(ToolSpec(name="code", description="", kind="code_interpreter"))
    options = ParserOptions(
        strict=rng.random() < 0.2,
        coerce=rng.random() < 0.8,
        validate=rng.random() < 0.8,
        parallel=rng.random() < 0.9,
        enabled=rng.random() < 0.98,
        builtins=("brave_search",) if rng.random() < 0.2 else (),
    )
    offered = {tool.name for tool in tools} | set(options.builtins)
    stop = rng.choice(STOPS)
    pieces = pieces_of(rng)
    message = parse_output(
        pieces, tools=tools, stop_reason=stop, options=options, new_id=lambda: "id"
    )
    outcome = check(message, pieces, offered, options)
    parser = OutputParser(tools, options=options, new_id=lambda: "id")
    deltas = [delta for piece in cut(rng, pieces) for delta in parser.feed(piece)]
    assert parser.finish(stop) == message, "cut differently, it reads differently"
    told = "".join(d.text for d in (*deltas, *parser.deltas) if isinstance(d, TextDelta))
    if not message.calls:
        assert told == message.text, "the text told is not the text"
    return sum(len(piece.text.encode(errors="replace")) for piece in pieces), outcome


def main() -> int:
    """Run, and print what was met; a failure is shown with the seed that repeats it."""
    parser = argparse.ArgumentParser(description="Feeds the parser damaged calls and noise.")
    parser.add_argument("--bytes", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    seen: Counter[str] = Counter()
    fed = texts = 0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = perf_counter()
    while fed < args.bytes:
        number = args.seed * 1_000_000_007 + texts
        try:
            size, outcome = once(random.Random(number))
        except BaseException:
            print(f"failed: once(random.Random({number}))")
            raise
        fed += size
        texts += 1
        seen[outcome] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    seconds = perf_counter() - start
    print(f"{fed} bytes in {texts} outputs, each read whole and in pieces, in {seconds:.0f} s")
    print(f"memory grew by {grown / 1024:.1f} MB; nothing raised, nothing called unasked")
    for outcome, count in seen.most_common():
        print(f"{count:>9}  {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
