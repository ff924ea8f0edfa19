"""Many clients at once on `corral serve`: errors, waiting times, and memory that comes back.

    python benchmarks/server.py [--clients 100] [--tokens 8]

Starts the real command with the demonstration model, lets one client ask and then many at once
twice, and prints figures and ratios. Works on Linux, where /proc tells a process's memory.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx

AGENT = """\
corral: 1
name: bench
model: cria
shields: none
memory: temporary
instructions: You are a helpful assistant.
limits:
  seconds: 600
"""
COMMAND = [sys.executable, "-c", "from corral.cli import main; main()"]


@dataclass
class Round:
    """What a number of clients met."""

    seconds: float = 0.0
    firsts: list[float] = field(default_factory=list[float])
    tokens: int = 0
    errors: list[str] = field(default_factory=list[str])

    def __str__(self) -> str:
        firsts = sorted(self.firsts) or [0.0]
        middle, late = statistics.median(firsts), firsts[int(len(firsts) * 0.95)]
        return (
            f"{len(self.firsts)} answers, {len(self.errors)} errors, {self.seconds:.1f} s, "
            f"{self.tokens / self.seconds:.1f} tokens/s, first byte {middle:.1f} s (median), "
            f"{late:.1f} s (95 of 100)"
        )


async def ask(url: str, number: int, tokens: int, round: Round) -> None:
    body = {
        "model": "bench",
        "messages": [{"role": "user", "content": f"Tell me about the number {number}."}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
    }
    began = time.monotonic()
    try:
        async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                answer.raise_for_status()
                text, first = "", 0.0
                async for piece in answer.aiter_text():
                    if not first and "data: " in piece:
                        first = time.monotonic() - began
                    text += piece
        if not text.endswith("data: [DONE]\n\n") or '"error"' in text:
            raise ValueError(text[-200:])
        round.firsts.append(first)
        round.tokens += sum(map(int, re.findall(r'"completion_tokens":(\d+)', text)))
    except Exception as error:
        round.errors.append(f"{type(error).__name__}: {error}")


async def together(url: str, clients: int, tokens: int) -> Round:
    done = Round()
    began = time.monotonic()
    async with anyio.create_task_group() as tasks:
        for number in range(clients):
            tasks.start_soon(ask, url, number, tokens, done)
    done.seconds = time.monotonic() - began
    return done


def memory(pid: int) -> float:
    """MiB that a process holds."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def measure(url: str, pid: int, clients: int, tokens: int) -> bool:
    one = await together(url, 1, tokens)
    one = await together(url, 1, tokens)
    print(f"1 client:     {one}")
    first = await together(url, clients, tokens)
    print(f"{clients} clients:  {first}")
    await anyio.sleep(2)
    before, open_before = memory(pid), descriptors(pid)
    again = await together(url, clients, tokens)
    print(f"{clients} clients:  {again}")
    await anyio.sleep(2)
    after, open_after = memory(pid), descriptors(pid)
    print(f"memory after the first {clients}: {before:.0f} MiB, after the second: {after:.0f} MiB")
    print(f"ratio of memory: {after / before:.3f}; open files: {open_before}, {open_after}")
    speed = (again.tokens / again.seconds) / (one.tokens / one.seconds)
    print(f"ratio of tokens a second, {clients} clients to one: {speed:.2f}")
    errors = [*one.errors, *first.errors, *again.errors]
    for error in errors[:5]:
        print("error:", error)
    return not errors


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=8)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        agent = Path(folder) / "bench.yaml"
        agent.write_text(AGENT)
        server = subprocess.Popen(
            [*COMMAND, "serve", str(agent), "--port", "0"], stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stderr is not None
            url = ""
            for line in server.stderr:
                if found := re.search(r"on (http://\S+)", line):
                    url = found[1]
                    break
            assert url, "the server did not start"
            good = anyio.run(measure, url, server.pid, chosen.clients, chosen.tokens)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
