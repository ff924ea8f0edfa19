"""Corral's local runtime beside transformers and llama.cpp, on a model of the 1B shape.

    python benchmarks/llama_1b.py models/llama-3.2-random
    python benchmarks/llama_1b.py models/llama-3.2-copying --copying
    python benchmarks/local_runtime.py models/llama-3.2-random --copying models/llama-3.2-copying

Prints Markdown, and on the error stream how far it has come. `--only speed loop` measures a part,
`--small` makes all of it small to see that it works. What is compared takes turns in rounds (A B C,
A B C, ...), with the same number of threads, other libraries each in a process of their own; the
first round warms up and isn't counted where there are more than two. llama.cpp is measured where
llama-cpp-python is installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
from local_speed import grammar, loading, reuse, sessions, speed
from local_speed.machine import cores, describe
from local_speed.options import SMALL, Options
from local_speed.turns import log, say

SECTIONS: dict[str, Callable[[Options], Awaitable[None]]] = {
    "speed": speed.speed,
    "busy": speed.busy,
    "precisions": speed.precisions,
    "loop": reuse.loop,
    "guard": reuse.guard,
    "lookup": reuse.lookup,
    "mask": grammar.mask,
    "compile": grammar.compile,
    "sessions": sessions.sessions,
    "load": loading.load,
    "calls": grammar.calls,
    "turns": sessions.turns,
}


async def measure(options: Options, names: list[str]) -> bool:
    """Print the tables of these sections. Returns whether all could be made."""
    import torch

    torch.set_num_threads(options.threads)
    say(describe(options.threads))
    good = True
    for name in names:
        began = time.perf_counter()
        try:
            await SECTIONS[name](options)
        except Exception:
            # One broken section must not cost the hours of the others.
            say(f"\nFailed: {name}\n\n```\n{traceback.format_exc()}```")
            good = False
        log(f"{name}: {time.perf_counter() - began:.0f} s in all")
    return good


def main(arguments: list[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what llama_1b.py made")
    parser.add_argument("--copying", type=Path, help="what llama_1b.py --copying made")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--without", nargs="+", default=[], help="ways to leave out, by name")
    parser.add_argument("--small", action="store_true", help="small sizes: figures mean nothing")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--loop-rounds", type=int)
    parser.add_argument("--tokens", type=int, help="written to measure decoding")
    parser.add_argument("--calls", type=int)
    parser.add_argument("--turns", type=int)
    parser.add_argument("--threads", type=int, default=cores())
    chosen = parser.parse_args(arguments)
    sizes = dict(SMALL) if chosen.small else {}
    for name in ("rounds", "loop_rounds", "tokens", "calls", "turns"):
        if getattr(chosen, name) is not None:
            sizes[name] = getattr(chosen, name)
    options = Options(
        folder=chosen.folder.absolute(),
        copying=chosen.copying.absolute() if chosen.copying else None,
        threads=chosen.threads,
        without=tuple(chosen.without),
        **sizes,
    )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    good = anyio.run(measure, options, chosen.only)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
