"""How long it takes from a folder to the first token, each time in a new process.

Run by itself, `python -m local_speed.loading WAY FOLDER THREADS` opens one way once and prints its
times as JSON.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import anyio.to_thread

from local_speed.machine import resident
from local_speed.options import Options
from local_speed.prompts import Prompts
from local_speed.turns import log, say, table, title

_WAYS = ("corral", "transformers", "transformers fp32", "llama.cpp Q8_0")


async def load(options: Options) -> None:
    """The first load, which converts the weights and keeps them, and later ones."""
    title("Loading (seconds from the folder to the first token, in a new process each time)")
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory(prefix="corral-load-") as cache:
        for name in _WAYS:
            if name in options.without:
                continue
            seconds: list[float] = []
            held = 0.0
            for number in range(options.loads):
                found = await anyio.to_thread.run_sync(_child, name, options, cache)
                if "missing" in found:
                    say(f"Not measured: {name}: {found['missing']}\n")
                    break
                seconds.append(found["first token"])
                held = found["held"]
                log(f"{name}, load {number + 1}: {found}")
            if len(seconds) == options.loads:
                rows.append([name, *seconds, held])
        size = _size(Path(cache))
    times = [f"load {number + 1}" for number in range(options.loads)]
    say(table(["", *times, "MiB more in memory at the end"], rows))
    say(
        "\nThe first load of all began with an empty cache of converted weights; after it the "
        f"cache held {size / 2**20:,.0f} MiB. The model's files had been read before, so that "
        "they are in the system's memory if that has room. Importing Python's packages isn't "
        "counted."
    )


def _size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _child(name: str, options: Options, cache: str) -> dict[str, float]:
    command = [sys.executable, "-m", "local_speed.loading"]
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "CORRAL_CACHE": cache,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    done = subprocess.run(
        [*command, name, str(options.folder), str(options.threads)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


async def _once(name: str, folder: Path, threads: int) -> None:
    import torch
    from transformers import AutoTokenizer

    from local_speed.ways import opened

    importlib.import_module("transformers.models.llama.modeling_llama")
    if importlib.util.find_spec("llama_cpp"):
        importlib.import_module("llama_cpp")
    torch.set_num_threads(threads)
    options = Options(folder=folder, threads=threads)
    prompts = Prompts(folder)
    prompt = prompts.user(16)
    before = resident()
    began = time.perf_counter()
    if name.startswith("transformers"):
        # The others load a tokenizer with the model.
        AutoTokenizer.from_pretrained(str(folder))
    async with opened([name], options, prompts, apart=False) as ways:
        if not ways:
            print(json.dumps({"missing": "it can't be had here"}))
            return
        there = time.perf_counter() - began
        await ways[0].answer(prompt, 1)
        first = time.perf_counter() - began
        print(json.dumps({"open": there, "first token": first, "held": resident() - before}))


if __name__ == "__main__":
    anyio.run(_once, sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
