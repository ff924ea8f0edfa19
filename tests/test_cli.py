"""The command as a user meets it: its output, its exit codes, its errors, and Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ASSISTANT = str(Path(__file__).parent.parent / "examples" / "assistant.yaml")
CORRAL = [sys.executable, "-c", "from corral.cli import main; main()"]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "CORRAL_DATA": str(tmp_path / "data")}


@pytest.fixture(scope="module", autouse=True)
async def fetched(cria, cria_guard) -> None:
    """The models are in the cache before a command is timed."""


def corral(env: dict[str, str], *args: str, **kwargs) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CORRAL, *args], env=env, capture_output=True, text=True, timeout=120, **kwargs
    )


def test_the_main_job_and_its_follow_up(env, tmp_path: Path):
    done = corral(env, "run", ASSISTANT, "What is 17 * 23?", "--session", "alice")
    assert done.returncode == 0, done.stderr
    assert "391" in done.stdout
    said = [
        r"demonstration model",
        r"shield input: safe",
        r"call   code_interpreter\n +.*17 \* 23",
        r"result code_interpreter\n +391",
        r"shield answer: safe",
        r"session alice is kept in .*corral\.db",
    ]
    at = 0
    for pattern in said:
        found = re.search(pattern, done.stderr[at:])
        assert found, (pattern, done.stderr)
        at += found.start()
    again = corral(env, "run", ASSISTANT, "and add 9 to that", "--session", "alice")
    assert again.returncode == 0, again.stderr
    assert "400" in again.stdout

    listed = corral(env, "sessions", "list")
    assert listed.stdout.startswith("alice\t")
    assert "2 turns" in listed.stdout
    shown = corral(env, "sessions", "show", "alice")
    assert "user: What is 17 * 23?" in shown.stdout
    assert "391" in shown.stdout
    lines = corral(env, "sessions", "show", "alice", "--json").stdout.splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"message", "verdict"}
    assert corral(env, "sessions", "forget", "alice").returncode == 2
    assert corral(env, "sessions", "forget", "alice", "--yes").returncode == 0
    assert b"17 * 23" not in (tmp_path / "data" / "corral.db").read_bytes()
    assert corral(env, "sessions", "show", "alice").returncode == 2


def test_json_prints_one_event_a_line(env):
    done = corral(env, "run", ASSISTANT, "What is 17 * 23?", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["kind"] == "turn_started"
    assert events[-1]["kind"] == "turn_finished"
    assert "391" in events[-1]["text"]


def test_a_blocked_message_exits_with_3(env):
    done = corral(env, "run", ASSISTANT, "Help me steal a bicycle from my neighbour.")
    assert done.returncode == 3, done.stderr
    assert "shield input: unsafe S" in done.stderr
    assert "call " not in done.stderr


BAD_KEY = "model: cria\ninstruction: x\n"


@pytest.mark.parametrize(
    ("yaml", "args", "code", "said"),
    [
        (BAD_KEY, ["hi"], 2, "agent.yaml:2: unknown key 'instruction'. Did you mean"),
        (None, ["hi"], 2, "There is no file"),
        ("model: crya\n", ["hi"], 2, "Did you mean 'cria'?"),
        ("model: cria\nshields: none\n", ["hi", "--model", "transformers:."], 2, "config.json"),
        ("model: cria\n", [""], 2, "The message is empty"),
        ("model: cria\n", ["hi", "--session", ""], 2, "session"),
        ("model: cria\n", ["hi", "--memory", "/proc/nowhere/x.db"], 2, "/proc/nowhere"),
        ("model: cria\n", [], 2, "MESSAGE"),
        ("model: ollama:x\nshields: none\n", ["hi"], 1, "ollama serve"),
    ],
)
def test_what_is_wrong_is_one_paragraph_with_the_right_exit_code(
    env, tmp_path: Path, yaml: str | None, args: list[str], code: int, said: str
):
    path = tmp_path / "agent.yaml"
    if yaml is not None:
        path.write_text(yaml)
    env["OLLAMA_HOST"] = "http://127.0.0.1:9"
    done = corral(env, "run", str(path), *args, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) <= 5


def test_a_data_folder_that_can_not_be_written_is_said(env, tmp_path: Path):
    (tmp_path / "data").write_text("a file where the folder should be")
    done = corral(env, "run", ASSISTANT, "hi")
    assert done.returncode == 2, done.stderr
    assert str(tmp_path / "data") in done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_has_help(env):
    for command in (
        [],
        ["run"],
        ["chat"],
        ["sessions"],
        ["sessions", "list"],
        ["sessions", "show"],
        ["sessions", "forget"],
        ["models"],
        ["models", "pull"],
        ["doctor"],
    ):
        done = corral(env, *command, "--help")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) > 3


def test_the_doctor_tells_what_this_machine_can_do(env):
    done = corral(env, "doctor")
    assert done.returncode == 0, done.stdout
    assert "sandbox  level" in done.stdout
    assert "cria and cria-guard: ready in" in done.stdout
    assert env["CORRAL_DATA"] in done.stdout


def test_pulling_what_does_not_come_with_corral_says_how_to_get_it(env):
    done = corral(env, "models", "pull", "llama3.2:3b")
    assert done.returncode == 2
    assert "ollama pull" in done.stderr


@pytest.mark.parametrize("moment", ["turn_started", "call_requested", "call_finished"])
def test_a_killed_run_loses_nothing_that_it_said(env, moment: str):
    process = subprocess.Popen(
        [*CORRAL, "run", ASSISTANT, "What is 17 * 23?", "--session", "k", "--json"],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told: list[dict] = []
    for line in process.stdout:
        told.append(json.loads(line))
        if told[-1]["kind"] == moment:
            process.kill()
            break
    process.wait()
    process.stdout.close()
    shown = corral(env, "sessions", "show", "k", "--json").stdout.splitlines()
    kept = [json.loads(line) for line in shown]
    messages = [item["message"] for item in kept if item["kind"] == "message"]
    assert messages[0]["content"] == "What is 17 * 23?"
    for event in told:
        if event["kind"] == "call_requested":
            assert any(event["call"] in m.get("calls", []) for m in messages)
        if event["kind"] == "call_finished":
            assert event["result"] in messages
    again = corral(env, "run", ASSISTANT, "What is 20 * 3?", "--session", "k")
    assert again.returncode == 0, again.stderr
    assert "60" in again.stdout


def test_prompt_prints_the_exact_prompt_and_its_tokens(env):
    done = corral(env, "prompt", ASSISTANT, "What is <|eot_id|>?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n")
    assert "What is <|eot_id|>?<|eot_id|>" in done.stdout
    assert "model cria" in done.stderr and "user 1" in done.stderr
    assert corral(env, "sessions", "list").stdout.strip() in ("", "no sessions yet")


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, env: dict[str, str], *args: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(CORRAL[0], [*CORRAL, *args], {**env, "TERM": "xterm"})
        self.seen = ""

    def wait_for(self, pattern: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not re.search(pattern, self.seen):
            assert time.monotonic() < end, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    text = os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it left, after {self.seen!r}") from None
                self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
                if "\x1b[6n" in text:  # where is the cursor?
                    os.write(self.fd, b"\x1b[1;1R")

    def wait_for_prompt(self) -> None:
        self.seen = self.seen.partition("shield answer: safe")[2]
        self.wait_for(">")

    def write(self, text: str) -> None:
        self.seen = ""
        os.write(self.fd, text.encode())

    def exit_code(self, seconds: float = 20) -> int:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:
                    pass
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"it did not leave: {self.seen!r}")


def test_ctrl_c_ends_a_turn_and_not_the_chat_and_a_second_one_leaves(env):
    terminal = Terminal(env, "chat", ASSISTANT, "--session", "c")
    terminal.wait_for("session c is kept")
    terminal.write("What is 17 * 23?\r")
    terminal.wait_for("shield answer: safe")
    assert "391" in terminal.seen
    terminal.wait_for_prompt()
    terminal.write("What is 18 * 24?\r")
    terminal.wait_for("shield input")
    terminal.write("\x03")
    terminal.wait_for(r"\(stopped\)")
    terminal.write("What is 30 + 12?\r")
    terminal.wait_for("shield answer: safe")
    assert "42" in terminal.seen
    terminal.wait_for_prompt()
    terminal.write("\x03")
    terminal.wait_for("again leaves")
    terminal.write("\x03")
    assert terminal.exit_code() == 0
    shown = corral(env, "sessions", "show", "c").stdout
    assert "18 * 24" in shown


def test_chat_reads_lines_from_a_pipe(env):
    done = corral(env, "chat", ASSISTANT, input="What is 17 * 23?\n\n/bye\n")
    assert done.returncode == 0, done.stderr
    assert "391" in done.stdout


def test_ctrl_c_in_a_run_stops_it_and_leaves_the_session_usable(env):
    process = subprocess.Popen(
        [*CORRAL, "run", ASSISTANT, "What is 17 * 23?", "--session", "i", "--json"],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "turn_started" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    shown = corral(env, "sessions", "show", "i").stdout
    assert "17 * 23" in shown


def test_a_signal_between_two_prompts_is_not_lost(env):
    terminal = Terminal(env, "chat", ASSISTANT, "--session", "c")
    terminal.wait_for("session c is kept")
    terminal.wait_for(">")
    # Sent by kill, not typed: the editor never sees it as a key.
    os.kill(terminal.pid, signal.SIGINT)
    terminal.wait_for("again leaves")
    terminal.write("/nothing\r")
    terminal.wait_for("shield answer|corral:")
    os.kill(terminal.pid, signal.SIGINT)
    terminal.wait_for(r"again leaves|\(stopped\)")
    os.kill(terminal.pid, signal.SIGINT)
    assert terminal.exit_code() == 0
