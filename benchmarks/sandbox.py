"""How long the sandbox takes, beside a plain subprocess and bubblewrap in the same run.

    python benchmarks/sandbox.py                      # the table
    python benchmarks/sandbox.py --leaks 1000 50      # calls in a row, and at once: what is left

Times are milliseconds, as the median and the 95th percentile of `--runs`; the last column is the
median's ratio to a bare `python -I -S -c pass`, measured in turns with the rest, so that a busy
machine slows both. What is run computes next to nothing, so a time is the sandbox's own.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

from corral.tools.sandbox import Level, Permissions, PythonPool, probe
from corral.tools.sandbox._keeper import descendants
from corral.tools.sandbox.run import run_at

DATA_STACK = ("numpy", "pandas")
WALL_SECONDS = 0.3
DAEMONS = """
import os, signal
for _ in range(3):
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.pause()
signal.pause()
"""


@dataclass
class Row:
    """One line of the table: what is measured, and what it should be at most."""

    name: str
    measure: Callable[[], Awaitable[float]]
    target: float | None = None
    times: list[float] = field(default_factory=list[float])


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds that `work` takes."""
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


async def plain(*argv: str) -> float:
    """Milliseconds that a plain subprocess takes, started and waited for as the sandbox's is."""

    def run() -> None:
        subprocess.run(argv, capture_output=True, check=True)

    return await timed(lambda: anyio.to_thread.run_sync(run))


def plain_rows() -> list[Row]:
    """What others take."""
    bare = [sys.executable, "-I", "-S", "-c", "pass"]
    rows = [
        Row("python -I -S -c pass", lambda: plain(*bare)),
        Row("python -I -c pass", lambda: plain(sys.executable, "-I", "-c", "pass")),
    ]
    bwrap = shutil.which("bwrap")
    if bwrap:
        flags = "--ro-bind / / --dev /dev --proc /proc --unshare-all --die-with-parent".split()
        rows.append(Row("bubblewrap, then the same", lambda: plain(bwrap, *flags, *bare)))
    return rows


def sandbox_rows(level: Level, *, data_stack: bool) -> list[Row]:
    """What the sandbox takes on `level`."""

    async def cold() -> float:
        return await timed(lambda: run_at(level, "1 + 1"))

    async def first(preload: tuple[str, ...], code: str) -> float:
        async with PythonPool(preload=preload, level=level) as pool:
            await pool.warm_up(sessions=True)
            # Until it is ready; and the next, which is started when this is taken, must not count.
            await anyio.sleep(2.5 if preload else 0.4)
            began = time.perf_counter()
            session = await pool.open_session()
            await session.run(code)
            milliseconds = (time.perf_counter() - began) * 1000
            await session.aclose()
            return milliseconds

    async def later(preload: tuple[str, ...]) -> float:
        async with PythonPool(preload=preload, spares=0, level=level) as pool:
            session = await pool.open_session()
            await session.run("x = 1")
            took = [await timed(lambda: session.run("x + 1")) for _ in range(9)]
            await session.aclose()
            return statistics.median(took)

    async def past_deadline(code: str, processes: int) -> float:
        limits = Permissions(wall_seconds=WALL_SECONDS, processes=processes)
        async with PythonPool(limits, level=level) as pool:
            await pool.warm_up(sessions=False)
            await anyio.sleep(0.4)
            return await _after_deadline(pool, code)

    stack = "import numpy, pandas\n1 + 1"
    rows = [
        Row(f"{level}: cold call", cold, 40),
        Row(f"{level}: first cell, warm", lambda: first((), "1 + 1"), 15),
        Row(f"{level}: later cell", lambda: later(()), 5),
        Row(
            f"{level}: dead after the deadline",
            lambda: past_deadline("import signal\nsignal.pause()", 0),
            50,
        ),
    ]
    if level != "reduced":
        rows.append(Row(f"{level}: the same, with daemons", lambda: past_deadline(DAEMONS, 8), 50))
    if data_stack:
        rows.insert(
            2, Row(f"{level}: first cell, numpy+pandas", lambda: first(DATA_STACK, stack), 30)
        )
        rows.insert(4, Row(f"{level}: later cell, numpy+pandas", lambda: later(DATA_STACK)))
    return rows


async def _after_deadline(pool: PythonPool, code: str) -> float:
    """Milliseconds from the deadline until nothing of the program is left and we know it."""
    began = time.perf_counter()
    result = await pool.run_python(code)
    milliseconds = (time.perf_counter() - began) * 1000
    if result.over != "wall":
        raise SystemExit(f"The program was to be killed, and was not: {result}")
    return milliseconds - WALL_SECONDS * 1000


async def measure(rows: list[Row], runs: int) -> None:
    """Measure all rows in turns."""
    for run in range(runs):
        for row in rows:
            row.times.append(await row.measure())
        print(f"\r{run + 1} of {runs}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def show(rows: list[Row]) -> None:
    """Print the table."""
    base = statistics.median(rows[0].times)
    print(f"{'':<38}{'median':>8}{'p95':>8}{'target':>8}{'ratio':>7}")
    for row in rows:
        median = statistics.median(row.times)
        high = sorted(row.times)[max(0, round(0.95 * len(row.times)) - 1)]
        target = "" if row.target is None else f"{row.target:g}"
        print(f"{row.name:<38}{median:8.1f}{high:8.1f}{target:>8}{median / base:7.2f}")


def used() -> dict[str, int]:
    """What this process holds, and what lies among the temporary files."""
    gc.collect()
    names = os.listdir(tempfile.gettempdir())
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "processes": len(descendants(os.getpid())),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "temporary files": sum(name.startswith("corral-") for name in names),
    }


async def leaks(level: Level, in_a_row: int, at_once: int) -> None:
    """Make that many calls, and print what they left."""
    before = used()
    began = time.perf_counter()
    async with PythonPool(level=level) as pool:
        for number in range(in_a_row):
            assert (await pool.run_python(f"{number} + 1")).stdout == f"{number + 1}\n"

        async def session(number: int) -> None:
            one = await pool.open_session()
            await one.run(f"x = {number}")
            assert (await one.run("x")).value == str(number)
            await one.aclose()

        async def program(number: int) -> None:
            result = await pool.run_python(f"open('f', 'w').write('x')\n{number}")
            assert result.stdout.splitlines()[-1] == str(number)

        for kind in (program, session):
            async with anyio.create_task_group() as group:
                for number in range(at_once):
                    group.start_soon(kind, number)
    seconds = time.perf_counter() - began
    after = used()
    print(f"{level}: {in_a_row} programs in a row, then {at_once} programs and {at_once} sessions")
    print(f"  at once, in {seconds:.0f} s")
    for what, count in before.items():
        print(f"  {what:<16}{count:>6} before{after[what]:>6} after")


async def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description="How long the sandbox takes.")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--level", action="append", choices=["namespaces", "bubblewrap", "reduced"])
    parser.add_argument("--leaks", type=int, nargs=2, metavar=("ROW", "ONCE"))
    wanted = parser.parse_args()
    levels: list[Level] = [
        level for level in probe().levels if not wanted.level or level in wanted.level
    ]
    if not levels:
        raise SystemExit(f"No sandbox here: {dict(probe().problems)}")
    if wanted.leaks:
        for level in levels:
            await leaks(level, *wanted.leaks)
        return
    data_stack = all(importlib.util.find_spec(name) for name in DATA_STACK)
    rows = plain_rows()
    for level in levels:
        rows += sandbox_rows(level, data_stack=data_stack)
    await measure(rows, wanted.runs)
    show(rows)


if __name__ == "__main__":
    anyio.run(main)
