"""What is gained by never computing a token twice: agent loops, guard checks, copied answers."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from corral.model_runtime.prompt import Segment, Text
from local_speed.options import Options
from local_speed.prompts import Prompts, as_prompt
from local_speed.turns import medians, say, spread, table, take_turns, title
from local_speed.ways import ALTERNATIVES, DEFAULT, Answer, CorralWay, Way, opened

Measure = Callable[[], Awaitable[Mapping[str, float]]]


async def loop(options: Options) -> None:
    """An agent's steps: each prompt is the last one, its answer, and a tool's result."""
    title(
        f"Agent loop of {options.steps} steps ({options.loop_prompt} tokens, then "
        f"{options.loop_more} more a step, {options.loop_tokens} written in each)"
    )
    prompts = Prompts(options.folder, seed=2)

    def measure(way: Way) -> Measure:
        async def turn() -> Mapping[str, float]:
            return await _one_loop(way, prompts, options)

        return turn

    async with opened((DEFAULT, *ALTERNATIVES), options, prompts) as ways:
        measures = {way.name: measure(way) for way in ways}
        found = await take_turns(measures, options.loop_rounds)
    if not found:
        return
    middle = medians(found)
    first = next(iter(middle.values()))
    rows = [
        [
            name,
            m["seconds"],
            spread(found[name]["seconds"]),
            m["seconds"] / first["seconds"],
            m["first step"],
            m["later step"],
            int(m["written"]),
            int(m["computed"]) if m["computed"] >= 0 else "",
            int(m["copied"]),
        ]
        for name, m in middle.items()
    ]
    head = [
        "",
        "seconds in all",
        "from-to",
        "times the first row",
        "first step",
        "a later step",
        "tokens written",
        "prompt tokens computed",
        "word pairs seen before",
    ]
    say(table(head, rows))
    say(
        f"\nMedians of {len(next(iter(found.values()))['seconds'])} rounds. `word pairs seen "
        "before` counts, in what was written, neighbours that stand in the prompt: what a guess "
        "from earlier text could have gained by accident."
    )


async def _one_loop(way: Way, prompts: Prompts, options: Options) -> Mapping[str, float]:
    segments = prompts.user(options.loop_prompt)
    seconds: list[float] = []
    written = computed = copied = 0
    for step in range(options.steps):
        length = prompts.count(segments)
        before = str(as_prompt(segments))
        answer = await way.answer(segments, options.loop_tokens)
        seconds.append(answer.seconds)
        written += answer.tokens
        computed += length - answer.cached
        copied += _pairs_in(before, answer.text)
        if step + 1 < options.steps:
            said = [*segments, Text(answer.text)]
            if prompts.count(said) != length + answer.tokens:
                raise ValueError(f"{way.name} wrote a text that isn't read back as it was written.")
            segments = [*said, *prompts.user(options.loop_more, begin=False)]
    later = sorted(seconds[1:])
    return {
        "seconds": sum(seconds),
        "first step": seconds[0],
        "later step": later[len(later) // 2] if later else float("nan"),
        "written": written,
        # Only Corral says what it had in its cache.
        "computed": computed if isinstance(way, CorralWay) else -1,
        "copied": copied,
    }


def _pairs_in(prompt: str, text: str) -> int:
    words = prompt.split()
    seen = set(zip(words, words[1:], strict=False))
    said = text.split()
    return sum(pair in seen for pair in zip(said, said[1:], strict=False))


async def guard(options: Options) -> None:
    """A guard's verdict from one pass over what is new, and by writing it after all was read."""
    title(
        f"Guard check (policy of {options.preamble} tokens, turn of {options.turn}, verdict of "
        f"{options.verdict})"
    )
    prompts = Prompts(options.folder, seed=3)
    policy = prompts.preamble(options.preamble)

    def check(begin: list[Segment]) -> list[Segment]:
        return [*begin, *prompts.user(options.turn, begin=False)]

    def warm(way: CorralWay) -> Measure:
        async def turn() -> Mapping[str, float]:
            prompt = as_prompt(check(policy))
            began = time.perf_counter()
            await way.runtime.score(prompt, ("safe", "unsafe"))
            return {"seconds": time.perf_counter() - began}

        return turn

    def cold_score(way: CorralWay) -> Measure:
        async def turn() -> Mapping[str, float]:
            prompt = as_prompt(check(prompts.preamble(options.preamble)))
            began = time.perf_counter()
            await way.runtime.score(prompt, ("safe", "unsafe"))
            return {"seconds": time.perf_counter() - began}

        return turn

    def cold(way: Way) -> Measure:
        async def turn() -> Mapping[str, float]:
            begin = prompts.preamble(options.preamble)
            answer = await way.answer(check(begin), options.verdict)
            return {"seconds": answer.seconds}

        return turn

    async with opened((DEFAULT, *ALTERNATIVES), options, prompts) as ways:
        measures: dict[str, Measure] = {}
        for way in ways:
            if isinstance(way, CorralWay):
                await warm(way)()  # the policy is computed once
                measures[f"{way.name}: score, policy warm"] = warm(way)
                measures[f"{way.name}: score, cold"] = cold_score(way)
            measures[f"{way.name}: generate, cold"] = cold(way)
        found = await take_turns(measures, options.rounds)
    if not found:
        return
    middle = medians(found)
    best = next(iter(middle.values()))["seconds"]
    rows = [
        [name, m["seconds"], spread(found[name]["seconds"]), m["seconds"] / best]
        for name, m in middle.items()
    ]
    say(table(["", "seconds", "from-to", "times the first row"], rows))


async def lookup(options: Options) -> None:
    """An answer that copies a tool's result, beside the same answer where there is none to copy."""
    title(f"Prompt lookup: an answer of {options.copied} tokens that copies a tool's result")
    if options.copying is None:
        say("Not measured: make a model that copies (`llama_1b.py --copying`) and name it.")
        return
    prompts = Prompts(options.copying, seed=4)
    names = (
        DEFAULT,
        "llama.cpp Q8_0",
        "llama.cpp Q8_0 with lookup",
        "transformers",
        "transformers with lookup",
    )

    async with opened(names, options, prompts, folder=options.copying) as ways:
        starts = {way.name: await _start(way, prompts, options) for way in ways}

        def measure(way: Way) -> Measure:
            async def turn() -> Mapping[str, float]:
                return await _copied_and_not(way, prompts, options, *starts[way.name])

            return turn

        found = await take_turns({way.name: measure(way) for way in ways}, options.rounds)
    if not found:
        return
    middle = medians(found)
    rows = [
        [
            name,
            m["copying"],
            m["not"],
            m["copying"] / m["not"],
            "yes" if min(found[name]["same"]) == 1 else "no",
            f"{int(m['distinct'])} of {options.copied}",
        ]
        for name, m in middle.items()
    ]
    head = [
        "",
        "tokens/s when it copies",
        "tokens/s when it can't",
        "ratio",
        "same answer in both",
        "distinct words",
    ]
    say(table(head, rows))
    say(
        "\nDecoding alone. Both prompts have the same length; the copied text stands in one of "
        "them. The model's next token depends on the last one only, so that the answer is the same."
    )


async def _start(way: Way, prompts: Prompts, options: Options) -> tuple[str, str]:
    """A first word of the answer after which it doesn't repeat itself for long, and the answer."""
    best = ("", "", 0)
    for _ in range(8):
        word = prompts.words(1)
        segments = [*prompts.user(options.prompt), Text(word)]
        answer = await way.answer(segments, options.copied)
        distinct = len(set(answer.text.split()))
        if distinct > best[2]:
            best = (word, answer.text, distinct)
        if distinct == answer.tokens:
            break
    return best[0], best[1]


async def _copied_and_not(
    way: Way, prompts: Prompts, options: Options, word: str, text: str
) -> Mapping[str, float]:
    length = max(options.prompt, options.copied + 64)
    answers: list[Answer] = []
    for shown in (f"{word}{text}", ""):
        segments = [*prompts.user(length, text=shown), Text(word)]
        answers.append(await way.answer(segments, options.copied))
    copying, other = answers
    return {
        "copying": copying.rate(),
        "not": other.rate(),
        "same": float(copying.text == other.text == text),
        "distinct": len(set(text.split())),
    }
