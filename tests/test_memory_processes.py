"""The conversation store under several processes, and under their sudden end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from corral.errors import SessionBusy
from corral.memory import INTERRUPTED, SQLiteStore
from corral.messages import AssistantMessage, ToolResult, UserMessage

PRELUDE = """
import signal
# Whoever began the tests in the background may have had them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys, time
from pathlib import Path
import anyio
from corral.memory import SQLiteStore
from corral.messages import AssistantMessage, ToolCall, UserMessage

path = Path(sys.argv[1])

def turn(store, session="main"):
    return store.turn(session, agent="child", model="cria")

def tell(text):
    print(text, flush=True)
"""

APPENDS = """
async def main():
    async with await SQLiteStore.open(path) as store, turn(store) as t:
        await t.append(UserMessage(content="go"))
        call = ToolCall(id="c1", name="sleep", arguments={})
        await t.append(AssistantMessage(calls=(call,)))
        tell("ready")
        number = 0
        while True:
            await t.append(UserMessage(content=f"m{number}"))
            tell(f"m{number}")
            number += 1
anyio.run(main)
"""

HOLDS = """
async def main():
    async with await SQLiteStore.open(path) as store, turn(store) as t:
        await t.append(UserMessage(content="mine"))
        tell("ready")
        await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        await t.finish("answered")
    tell("done")
anyio.run(main)
"""

OPENS = """
async def main():
    tell("ready")
    begin = float(sys.stdin.readline())
    for number in range(8):
        await anyio.sleep(max(0.0, begin + 0.12 * number - time.time()))
        file = path.with_name(f"{number}.db")
        async with await SQLiteStore.open(file) as store, turn(store, sys.argv[2]) as t:
            await t.append(UserMessage(content="hi"))
            await t.finish("answered")
    tell("done")
anyio.run(main)
"""


@contextmanager
def child(program: str, path: Path, *arguments: str):
    command = [sys.executable, "-c", PRELUDE + program, str(path), *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    with process:
        try:
            assert process.stdout.readline().strip() == "ready"
            yield process
        finally:
            process.kill()


async def statuses(path: Path) -> list[str]:
    import json

    async with await SQLiteStore.open(path) as store:
        lines = [json.loads(line) async for line in store.export("main")]
    return [line["status"] for line in lines if line["kind"] == "turn"]


@pytest.mark.parametrize("after", [1, 100])
async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path, after):
    path = tmp_path / "corral.db"
    with child(APPENDS, path) as process:
        told = [process.stdout.readline().strip() for _ in range(after)]
        process.kill()
        # Not waited for: the dead process is still a zombie when the next turn looks for it.
        async with await SQLiteStore.open(path) as store:
            with anyio.fail_after(5):
                while True:
                    try:
                        async with store.turn("main", agent="next", model="cria") as t:
                            history = await t.history()
                            await t.finish("answered")
                        break
                    except SessionBusy:
                        # The signal may take a moment to arrive; the lease of 30 seconds may not.
                        await anyio.sleep(0.005)
            items = await store.items("main")
        told += process.stdout.read().split()
    stored = [item.message.text for item in items if isinstance(item.message, UserMessage)]
    assert told == [text for text in told if text in set(stored)], "acknowledged, and not stored"
    assert stored[0] == "go" and stored[1:] == [f"m{n}" for n in range(len(stored) - 1)]
    assert len(told) <= len(stored) - 1 <= len(told) + 1
    assert isinstance(history[1], AssistantMessage)
    assert history[2] == ToolResult(call_id="c1", name="sleep", content=INTERRUPTED, is_error=True)
    assert await statuses(path) == ["interrupted", "answered"]


async def test_six_processes_open_a_new_database_at_once(tmp_path):
    from contextlib import ExitStack

    with ExitStack() as stack:
        started = [
            stack.enter_context(child(OPENS, tmp_path / "x.db", f"session {number}"))
            for number in range(6)
        ]
        begin = time.time() + 0.1
        for process in started:
            process.stdin.write(f"{begin}\n")
        for process in started:
            assert process.stdout.readline().strip() == "done"
            assert process.wait(10) == 0
    for number in range(8):
        async with await SQLiteStore.open(tmp_path / f"{number}.db") as store:
            assert len(await store.sessions()) == 6


async def test_a_session_that_another_process_uses_is_busy_until_that_one_is_done(tmp_path):
    path = tmp_path / "corral.db"
    with child(HOLDS, path) as process:
        async with await SQLiteStore.open(path) as store:
            with pytest.raises(SessionBusy, match=str(process.pid)):
                async with store.turn("main", agent="second", model="cria"):
                    pass
            with pytest.raises(SessionBusy):
                await store.forget("main")
            async with store.turn("other", agent="second", model="cria") as t:
                await t.finish("answered")
            process.stdin.write("\n")
            async with store.turn("main", agent="second", model="cria", wait=10) as t:
                assert await t.history() == [UserMessage(content="mine")]
                await t.finish("answered")
        assert process.stdout.readline().strip() == "done"
    assert await statuses(path) == ["answered", "answered"]


async def test_ctrl_c_ends_the_turn_as_cancelled(tmp_path):
    path = tmp_path / "corral.db"
    with child(HOLDS, path) as process:
        process.send_signal(signal.SIGINT)
        # The reading thread ends with its pipe, which must not close before the signal is seen.
        await anyio.sleep(2)
        process.stdin.close()
        assert process.wait(10) != 0
    assert await statuses(path) == ["cancelled"]
