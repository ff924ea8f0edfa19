"""How fast a model of the 1B shape writes and reads, beside the memory's own speed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from local_speed.elsewhere import Elsewhere
from local_speed.machine import Reader
from local_speed.options import Options
from local_speed.prompts import Prompts
from local_speed.turns import Values, medians, say, spread, table, take_turns, title
from local_speed.ways import ALTERNATIVES, DEFAULT, PRECISIONS, Way, opened

Measure = Callable[[], Awaitable[Mapping[str, float]]]


async def speed(options: Options) -> None:
    """Decode and prefill, beside transformers, llama.cpp and the limit of the memory."""
    names = (DEFAULT, *ALTERNATIVES)
    await _speed(options, names, f"Decode (batch 1, {options.prompt} in the cache) and prefill")


async def busy(options: Options) -> None:
    """The same beside a program that keeps one processor busy."""
    few = replace(options, prompt=options.busy_prompt, tokens=options.busy_tokens)
    with _busy_program():
        await _speed(
            few,
            (DEFAULT, *ALTERNATIVES),
            f"Decode ({few.prompt} in the cache) and prefill beside one busy program",
        )


@contextmanager
def _busy_program() -> Iterator[None]:
    program = subprocess.Popen([sys.executable, "-I", "-c", "while True: pass"])
    try:
        yield
    finally:
        program.kill()
        program.wait()


async def precisions(options: Options) -> None:
    """Corral's own precisions, one beside the other."""
    names = [f"corral {precision}" for precision in PRECISIONS]
    await _speed(options, names, "Corral by precision")


async def _speed(options: Options, names: tuple[str, ...] | list[str], heading: str) -> None:
    title(heading)
    prompts = Prompts(options.folder)
    matrices = _matrix_weights(options)

    async def memory() -> Mapping[str, float]:
        return {"bytes a second": reader.call("measure")}

    def measure(way: Way) -> Measure:
        async def turn() -> Mapping[str, float]:
            answer = await way.answer(prompts.user(options.prompt), options.tokens)
            return {
                "decode": answer.rate(),
                "prefill": options.prompt / answer.first,
                "written": answer.tokens,
                "distinct": len(set(answer.text.split())),
            }

        return turn

    async with opened(names, options, prompts) as ways:
        measures: dict[str, Measure] = {way.name: measure(way) for way in ways}
        if not measures:
            return
        reader = Elsewhere(Reader, matrices, options.threads)
        try:
            found = await take_turns({**measures, "memory": memory}, options.rounds)
        finally:
            reader.close()
    limit = medians(found).pop("memory")["bytes a second"]
    say(_speed_table(found, limit / matrices))
    say(
        f"\nMedians of {len(found['memory']['bytes a second'])} rounds in which all took turns. "
        f"The memory was read at {limit / 1e9:.1f} GB/s "
        f"({spread([v / 1e9 for v in found['memory']['bytes a second']])}) by {options.threads} "
        f"threads over {matrices / 1e9:.2f} GB, what the matrices take in 8 bits, so no more than "
        f"{limit / matrices:.1f} tokens a second can be had of such weights."
    )
    for name, values in found.items():
        if name != "memory" and min(values["written"]) < options.tokens:
            say(f"\n{name} ended before its time in a round; it is counted by what it wrote.")


def _speed_table(found: Mapping[str, Values], limit: float) -> str:
    middle = medians(found)
    names = [name for name in found if name != "memory"]
    first = middle[names[0]]
    rows = [
        [
            name,
            middle[name]["decode"],
            spread(found[name]["decode"]),
            first["decode"] / middle[name]["decode"],
            f"{middle[name]['decode'] / limit:.0%}",
            middle[name]["prefill"],
            spread(found[name]["prefill"]),
            first["prefill"] / middle[name]["prefill"],
            int(middle[name]["distinct"]),
        ]
        for name in names
    ]
    head = [
        "",
        "decode, tokens/s",
        "from-to",
        f"{names[0]} is times as fast",
        "of the 8-bit limit",
        "prefill, tokens/s",
        "from-to",
        f"{names[0]} is times as fast",
        "distinct words written",
    ]
    return table(head, rows)


def _matrix_weights(options: Options) -> int:
    """How many weights are read for a token: all but the norms."""
    from safetensors import safe_open

    total = 0
    with safe_open(options.folder / "model.safetensors", framework="pt") as weights:
        for key in weights.keys():
            shape = weights.get_slice(key).get_shape()
            total += shape[0] * shape[1] if len(shape) == 2 else 0
    return total
