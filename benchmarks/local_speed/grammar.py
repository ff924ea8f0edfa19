"""What a grammar costs, and that random weights under one write nothing but valid calls."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import anyio
from jsonschema import Draft202012Validator

from corral.model_runtime import open_runtime, parse_output
from corral.model_runtime.grammar import Grammars
from corral.model_runtime.parser import ParserOptions
from corral.model_runtime.runtime import Constraint, Finish, Piece, Runtime, Sampling
from local_speed.options import Options
from local_speed.prompts import Prompts, as_prompt
from local_speed.toolsets import tool_set
from local_speed.turns import log, medians, say, spread, table, take_turns, title
from local_speed.ways import DEFAULT, CorralWay, opened

Measure = Callable[[], Awaitable[Mapping[str, float]]]

_MOST_TOKENS = 3000
_STRING: dict[str, Any] = {
    "type": "object",
    "properties": {"text": {"type": "string", "minLength": 40}},
    "required": ["text"],
}


async def calls(options: Options) -> None:
    """Calls drawn at temperature 1 from random weights: all are to be read and to be valid."""
    title(f"{options.calls:,} messages of calls from random weights, {options.tool_sets} tool sets")
    prompts = Prompts(options.folder, seed=7)
    runtime = await open_runtime(f"transformers:{options.folder}")
    seen: Counter[str] = Counter()
    began = time.perf_counter()
    try:
        numbers = iter(range(options.calls))

        async def worker() -> None:
            for number in numbers:
                await _call(runtime, prompts, number, options, seen)
                if seen["messages"] % 50 == 0:
                    log(f"{seen['messages']} messages, {time.perf_counter() - began:.0f} s")

        async with anyio.create_task_group() as tasks:
            for _ in range(min(options.at_once, options.calls)):
                tasks.start_soon(worker)
    finally:
        await runtime.aclose()
    seconds = time.perf_counter() - began
    names = ("messages", "read and valid", "calls in them", "failed", "cut off", "tokens")
    say(table(names, [[seen[name] for name in names]]))
    say(
        f"\nTemperature 1, {options.at_once} sessions at once, {seconds:.0f} s. Calls were read by "
        "the strict parser and checked by jsonschema against the tools' own schemas; `cut off` "
        f"had not ended after {_MOST_TOKENS:,} tokens."
    )


async def _call(
    runtime: Runtime, prompts: Prompts, number: int, options: Options, seen: Counter[str]
) -> None:
    constraint = tool_set(number % options.tool_sets)
    sampling = Sampling(temperature=1.0, max_tokens=_MOST_TOKENS, seed=number)
    pieces: list[Piece] = []
    cut = False
    prompt = as_prompt(prompts.user(24))
    async with aclosing(
        runtime.generate(prompt, sampling=sampling, constraint=constraint)
    ) as written:
        async for piece in written:
            if isinstance(piece, Finish):
                seen["tokens"] += piece.usage.output_tokens
                cut = piece.reason == "max_tokens"
            else:
                pieces.append(piece)
    seen["messages"] += 1
    if cut:
        seen["cut off"] += 1
        return
    if found := _valid_calls(pieces, constraint):
        seen["calls in them"] += found
        seen["read and valid"] += 1
    else:
        seen["failed"] += 1
        log(f"failed: {''.join(piece.text for piece in pieces)!r}")


def _valid_calls(pieces: list[Piece], constraint: Constraint) -> int:
    """How many calls these are; 0 where one of them is not valid, or there is anything else."""
    message = parse_output(pieces, tools=constraint.tools, options=ParserOptions(strict=True))
    schemas = {tool.name: tool.parameters for tool in constraint.tools}
    for call in message.calls:
        if call.name not in schemas:
            return 0
        if not Draft202012Validator(schemas[call.name]).is_valid(call.arguments):
            return 0
    return 0 if message.text.strip() else len(message.calls)


async def mask(options: Options) -> None:
    """What following a grammar adds to a token."""
    title("What a grammar adds to each token")
    prompts = Prompts(options.folder, seed=8)
    forms: dict[str, Constraint | None] = {
        "no grammar": None,
        "text, where ten tools could be called": tool_set(1, tools=10, required=False),
        "inside a string of a JSON schema": Constraint(json_schema=_STRING),
    }

    def measure(way: CorralWay, constraint: Constraint | None) -> Measure:
        async def turn() -> Mapping[str, float]:
            prompt = prompts.user(options.prompt)
            answer = await way.answer(prompt, options.tokens, constraint=constraint)
            # The first tokens of an object are forced, and come in one go.
            rate = answer.rate(skip=min(8, options.tokens // 2))
            return {"milliseconds": 1000 / rate, "written": answer.tokens}

        return turn

    async with opened([DEFAULT], options, prompts) as ways:
        way = ways[0]
        assert isinstance(way, CorralWay)
        measures = {name: measure(way, constraint) for name, constraint in forms.items()}
        found = await take_turns(measures, options.rounds)
    middle = medians(found)
    free = middle["no grammar"]["milliseconds"]
    rows = [
        [
            name,
            m["milliseconds"],
            spread(found[name]["milliseconds"]),
            f"{m['milliseconds'] / free - 1:+.1%}",
            int(m["written"]),
        ]
        for name, m in middle.items()
    ]
    say(table(["", "ms a token", "from-to", "added", "tokens written"], rows))
    own = _mask_alone(prompts, forms)
    rows = [[name, ms, f"{ms / free:.1%}"] for name, ms in own.items()]
    say("\nThe mask by itself, with taking the token, measured without the model:\n")
    say(table(["", "ms a token", "of a token's time"], rows))


def _mask_alone(prompts: Prompts, forms: Mapping[str, Constraint | None]) -> dict[str, float]:
    import torch

    width = _width(prompts)
    grammars = Grammars(prompts.tokenizer, vocabulary=width)
    logits = torch.randn(width)
    ids = prompts.tokenizer.encode_text(prompts.words(200))
    found: dict[str, float] = {}
    for name, constraint in forms.items():
        if constraint is None:
            continue
        matcher = grammars.matcher(constraint)
        begin = '{"text": "' if constraint.json_schema else ""
        for token in prompts.tokenizer.encode_text(begin):
            matcher.advance(token)
        took: list[float] = []
        for token in ids:
            began = time.perf_counter()
            matcher.mask(logits)
            matcher.advance(token)
            matcher.forced()
            took.append(time.perf_counter() - began)
        found[name] = statistics.median(took) * 1000
    return found


async def compile(options: Options) -> None:
    """How long a set of ten tools takes to become a grammar, and to be found again."""
    title("Compiling tools")
    prompts = Prompts(options.folder, seed=9)
    began = time.perf_counter()
    grammars = Grammars(prompts.tokenizer, vocabulary=_width(prompts))
    setup = time.perf_counter() - began
    fresh: dict[int, list[float]] = {1: [], 10: []}
    again: dict[int, list[float]] = {1: [], 10: []}
    for number in range(20):
        for tools in fresh:
            constraint = tool_set(1000 + number, tools=tools)
            for into in (fresh, again):
                began = time.perf_counter()
                grammars.matcher(constraint)
                into[tools].append((time.perf_counter() - began) * 1000)
    rows = [
        [
            f"{tools} tool{'s' * (tools > 1)}",
            statistics.median(fresh[tools]),
            max(fresh[tools]),
            statistics.median(again[tools]),
        ]
        for tools in fresh
    ]
    say(table(["", "ms, median of 20 sets", "ms, slowest", "ms, the same set again"], rows))
    say(f"\nSetting up for Llama 3's vocabulary, once a process: {setup:.2f} s.")


def _width(prompts: Prompts) -> int:
    """How many tokens there are, control tokens included."""
    return len(prompts.vocabulary())
