"""Approval on the command line: the question, what there is without a terminal, and the command.

The commands talk to cria through a loopback server that speaks Ollama's API, so that none of them
has to load a model.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from ollama_server import serve
from test_cli import Terminal, corral

YAML = """\
model: ollama:cria
shields: none
instructions: You manage files.
tools:
  - files.py:delete_file
limits: {steps: 2}
sampling: {max_tokens: 60}
"""
FILES = """\
from pathlib import Path
from corral import tool

@tool(needs_approval=True)
def delete_file(name: str) -> str:
    '''Delete a file.

    Args:
        name: The file's name.
    '''
    with (Path(__file__).parent / "done").open("a") as file:
        file.write(name + "\\n")
    return f"deleted {name}"
"""
ASK = "Delete the file notes.txt"


@pytest.fixture
async def env(cria, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    (tmp_path / "agent.yaml").write_text(YAML)
    (tmp_path / "files.py").write_text(FILES)
    with serve({"cria": cria}) as served:
        yield {**os.environ, "CORRAL_DATA": str(tmp_path / "data"), "OLLAMA_HOST": served.url}


async def away(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call it in a thread, since the model behind the server runs in this one."""
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs))


def done(folder: Path) -> list[str]:
    file = folder / "done"
    return file.read_text().splitlines() if file.exists() else []


async def test_on_a_terminal_a_yes_runs_the_call(env, tmp_path: Path):
    terminal = Terminal(env, "run", str(tmp_path / "agent.yaml"), ASK)
    await away(terminal.wait_for, r"why: [^\n]*\n(.|\n)*Run delete_file\?")
    assert done(tmp_path) == []
    terminal.write("y\r")
    await away(terminal.wait_for, "approved")
    assert await away(terminal.exit_code, 60) == 0
    assert done(tmp_path) == ["notes.txt"]


async def test_on_a_terminal_anything_else_is_a_no_and_its_reason(env, tmp_path: Path):
    terminal = Terminal(env, "chat", str(tmp_path / "agent.yaml"))
    await away(terminal.wait_for, "session .* is kept")
    terminal.write(ASK + "\r")
    await away(terminal.wait_for, r"Run delete_file\?")
    terminal.write("I need it\r")
    await away(terminal.wait_for, "denied: I need it")
    terminal.write("\x03")
    # Ctrl-D is a key of the editor's: before its prompt is there, the terminal swallows it.
    await away(terminal.wait_for, r"(?s)(\(stopped\)|again leaves).*>")
    terminal.write("\x04")
    await away(terminal.exit_code, 60)
    assert done(tmp_path) == []


async def test_ctrl_c_at_the_question_leaves_it_open_for_corral_approve(env, tmp_path: Path):
    terminal = Terminal(env, "run", str(tmp_path / "agent.yaml"), ASK, "--session", "s")
    await away(terminal.wait_for, r"Run delete_file\?")
    terminal.write("\x03")
    assert await away(terminal.exit_code, 60) == 130
    assert "corral approve s" in terminal.seen
    shown = (await away(corral, env, "sessions", "show", "s")).stdout
    assert 'waits for approval delete_file(name="notes.txt")' in shown
    answered = await away(corral, env, "approve", "s", cwd="/")
    assert answered.returncode == 0, answered.stderr
    assert "approved" in answered.stderr
    assert done(tmp_path) == ["notes.txt"]
    again = await away(corral, env, "approve", "s")
    assert again.returncode == 2
    assert "Nothing waits" in again.stderr


async def test_without_a_terminal_it_is_denied_and_said_so(env, tmp_path: Path):
    ran = await away(corral, env, "run", str(tmp_path / "agent.yaml"), ASK)
    assert "denied: nobody was there to ask" in ran.stderr
    assert done(tmp_path) == []


async def test_what_waits_can_be_left_seen_and_denied_with_a_reason(env, tmp_path: Path):
    agent = str(tmp_path / "agent.yaml")
    ran = await away(corral, env, "run", agent, ASK, "--session", "s", "--approve-later", "--json")
    assert ran.returncode == 4, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [e["kind"] for e in events][-2:] == ["approval_requested", "turn_finished"]
    shown = (await away(corral, env, "sessions", "show", "s", "--json")).stdout.splitlines()
    pending = json.loads(shown[-1])
    assert (pending["kind"], pending["call"]) == ("pending", events[-2]["call"])
    unknown = await away(corral, env, "approve", "s", "call_0")
    assert unknown.returncode == 2 and "'call_0'" in unknown.stderr
    denied = await away(
        corral, env, "approve", "s", pending["call"]["id"], "--deny", "--reason", "keep it"
    )
    assert "denied: keep it" in denied.stderr
    assert done(tmp_path) == []


async def test_an_answer_reaches_a_run_that_waits_in_another_terminal(env, tmp_path: Path):
    terminal = Terminal(env, "run", str(tmp_path / "agent.yaml"), ASK, "--session", "s")
    await away(terminal.wait_for, r"Run delete_file\?")
    answered = await away(corral, env, "approve", "s", "--deny")
    assert answered.returncode == 0, answered.stderr
    assert "goes on in its own process" in answered.stderr
    terminal.write("y\r")
    await away(terminal.wait_for, r"denied|was denied before")
    await away(terminal.exit_code, 60)
    assert done(tmp_path) == []
