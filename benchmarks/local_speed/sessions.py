"""Many sessions on one model: at once and one after another, and for a long time."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import anyio

from corral.model_runtime import open_runtime
from corral.model_runtime.cria.fetch import ensure_merged
from corral.model_runtime.prompt import Segment
from corral.model_runtime.runtime import Constraint, Finish, Runtime, Sampling
from local_speed.machine import resident
from local_speed.options import Options
from local_speed.prompts import Prompts, as_prompt
from local_speed.turns import log, say, spread, table, title
from local_speed.ways import Answer, CorralWay

_LONG = Constraint(json_schema={"type": "string", "minLength": 4000})
"""Holds every session to writing all its tokens: a trained model ends when it has answered, and the
last to end would be all that is measured."""


async def sessions(options: Options) -> None:
    """Several sessions at once beside the same number one after another."""
    title(
        f"{options.sessions} sessions at once (a prompt of "
        f"{options.session_prefix + options.session_own} tokens, {options.session_prefix} of them "
        f"shared, {options.session_tokens} written)"
    )
    rows: list[list[object]] = []
    models = {options.demo: (options.demo, await _folder(options.demo))}
    models[f"{options.folder.name} shape"] = (f"transformers:{options.folder}", options.folder)
    for name, (model, folder) in models.items():
        runtime = await open_runtime(model)
        try:
            rows.append([name, *await _sessions(CorralWay(runtime, name), folder, options)])
        finally:
            await runtime.aclose()
    head = [
        "",
        "one after another, tokens/s",
        "at once, tokens/s",
        "ratio",
        "from-to",
        "written by each",
        "same",
    ]
    say(table(head, rows))
    say(
        "\nTokens written by all, divided by the time from the first prompt to the last answer. A "
        "grammar holds each session to a string that is longer than what it may write, so that all "
        "write equally much. "
        "`same` counts the sessions that wrote at once what they wrote alone."
    )


async def _folder(model: str) -> Path:
    """Where the model of a model string lies."""
    scheme, _, folder = model.partition(":")
    return Path(folder) if scheme == "transformers" else await ensure_merged(model)


async def _sessions(way: CorralWay, folder: Path, options: Options) -> list[object]:
    prompts = Prompts(folder, seed=5)
    ratios: list[float] = []
    rates: list[tuple[float, float]] = []
    same = written = 0
    for number in range(options.rounds + 1):
        one = _batch(prompts, options)
        began = time.perf_counter()
        alone = [
            await way.answer(segments, options.session_tokens, constraint=_LONG) for segments in one
        ]
        slow = sum(answer.tokens for answer in alone) / (time.perf_counter() - began)
        began = time.perf_counter()
        answers = await _together(way, _batch(prompts, options), options)
        fast = sum(answer.tokens for answer in answers) / (time.perf_counter() - began)
        log(f"{way.name}: {slow:.1f} tokens/s one after another, {fast:.1f} at once")
        if number == options.rounds:
            again = await _together(way, one, options)
            same = sum(a.text == b.text for a, b in zip(alone, again, strict=True))
        if number:  # the first warms up
            rates.append((slow, fast))
            ratios.append(fast / slow)
            written += sum(answer.tokens for answer in answers)
    return [
        statistics.median(slow for slow, _ in rates),
        statistics.median(fast for _, fast in rates),
        statistics.median(ratios),
        spread(ratios),
        written / len(rates) / options.sessions,
        f"{same} of {options.sessions}",
    ]


def _batch(prompts: Prompts, options: Options) -> list[list[Segment]]:
    shared = prompts.preamble(options.session_prefix)
    own = options.session_own
    return [[*shared, *prompts.user(own, begin=False)] for _ in range(options.sessions)]


async def _together(
    way: CorralWay, batch: Sequence[list[Segment]], options: Options
) -> list[Answer]:
    answers: list[Answer | None] = [None] * len(batch)

    async def ask(number: int) -> None:
        answers[number] = await way.answer(batch[number], options.session_tokens, constraint=_LONG)

    async with anyio.create_task_group() as tasks:
        for number in range(len(batch)):
            tasks.start_soon(ask, number)
    return [answer for answer in answers if answer is not None]


async def turns(options: Options) -> None:
    """Thousands of turns, many of them left before their end: memory before and after."""
    title(f"{options.turns:,} turns with cancellations ({options.demo})")
    folder = await _folder(options.demo)
    runtime = await open_runtime(options.demo)
    rows: list[list[object]] = []
    try:
        prompts = Prompts(folder, seed=6)
        shared = prompts.preamble(24)
        done = {"finished": 0, "closed": 0, "cancelled": 0}

        async def some(turns: range) -> None:
            async with anyio.create_task_group() as tasks:
                for worker in range(8):
                    tasks.start_soon(_turns, runtime, prompts, shared, turns[worker::8], done)

        warm = min(1000, options.turns)
        began = time.perf_counter()
        await some(range(warm))
        rows.append([f"after the first {warm}, to warm up", *_held()])
        for part in range(4):
            step = options.turns // 4
            await some(range(part * step, (part + 1) * step))
            log(f"{(part + 1) * step} turns, {time.perf_counter() - began:.0f} s")
            rows.append([f"after {(part + 1) * step:,} more", *_held()])
    finally:
        await runtime.aclose()
    say(table(["", "MiB held", "open files", "threads"], rows))
    counted = ", ".join(f"{count:,} {how}" for how, count in done.items())
    say(f"\nAll turns: {counted}, in {time.perf_counter() - began:.0f} s, eight at a time.")


async def _turns(
    runtime: Runtime, prompts: Prompts, shared: list[Segment], turns: range, done: dict[str, int]
) -> None:
    """Turns of which one finishes, the next is closed at its first piece, the third cancelled."""
    sampling = Sampling(temperature=1.0, max_tokens=8)
    for number in turns:
        prompt = as_prompt([*shared, *prompts.user(20, begin=False)])
        how = ("finished", "closed", "cancelled")[number % 3]
        with anyio.CancelScope() as scope:
            if how == "cancelled":
                scope.deadline = anyio.current_time() + 0.01 * (number % 40)
            async with aclosing(runtime.generate(prompt, sampling=sampling)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Finish):
                        how = "finished"
                    elif how == "closed":
                        break
        done["cancelled" if scope.cancelled_caught else how] += 1


def _held() -> tuple[float, object, int]:
    try:
        files: object = len(os.listdir("/proc/self/fd"))
    except OSError:
        files = ""
    return resident(), files, threading.active_count()
