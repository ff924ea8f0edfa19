"""`corral serve` as a command, and docs/server.md, whose blocks run against it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "server.md").read_text()
BLOCKS = [
    (language, re.sub(r"^  ", "", code, flags=re.M) if indent else code)
    for indent, language, code in re.findall(r"^( *)```(\w+)\n(.*?)^ *```$", PAGE, re.M | re.S)
]
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [
    command
    for language, code in BLOCKS
    if language == "sh"
    for command in re.split(r"\n+(?=\S)", code.strip().replace("\\\n", " "))
]
CORRAL = [sys.executable, "-c", "from corral.cli import main; main()"]
DOCUMENTED = "http://127.0.0.1:11435"
SECONDS = 240


@pytest.fixture(scope="module")
def env(tmp_path_factory, cria) -> dict[str, str]:
    return {**os.environ, "CORRAL_DATA": str(tmp_path_factory.mktemp("data"))}


@pytest.fixture(scope="module")
def url(env) -> Iterator[str]:
    """The server of the page, without its guard, which would only cost time here."""
    given = next(command for command in SHELL if command.endswith("--raw cria"))
    words = [*shlex.split(given)[1:], "--port", "0", "--shields", "none"]
    server = subprocess.Popen(
        [*CORRAL, *words], env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        found = next(filter(None, (re.search(r"on (http://\S+)", x) for x in server.stderr)))
        yield found[1]
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0
    finally:
        server.kill()
        server.wait()
        if server.stderr is not None:
            server.stderr.close()


def run(words: list[str], env: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env={**env, **more}, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_the_pages_python_gets_answers(code, url, env):
    done = run([sys.executable, "-c", code.replace(DOCUMENTED, url)], env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_pages_curl_commands_get_answers(url, env):
    commands = [shlex.split(c.replace(DOCUMENTED, url)) for c in SHELL if c.startswith("curl")]
    answers = [run([*command, "--fail", "--silent"], env) for command in commands]
    assert [answer.returncode for answer in answers] == [0, 0]
    assert '"finish_reason":"stop"' in answers[0].stdout
    assert '"done":true' in answers[1].stdout.splitlines()[-1]


def test_the_pages_corral_on_another_machine_uses_the_raw_model(url, env):
    command = next(c for c in SHELL if c.startswith("OLLAMA_HOST="))
    _, _, *words = shlex.split(command)
    done = run([*CORRAL, *words, "--shields", "none"], env, OLLAMA_HOST=url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_pages_other_commands_are_spelled_right(monkeypatch):
    from corral.cli import main

    rest = [c for c in SHELL if c.startswith("corral serve")]
    assert len(rest) == 3
    for command in rest:
        context = main.commands["serve"].make_context("serve", shlex.split(command)[2:])
        assert context.params["agents"] == (Path("examples/assistant.yaml"),)
    others = [c for c in SHELL if c not in rest and not c.startswith(("curl", "OLLAMA_HOST"))]
    assert [c.split()[0] for c in others] == ["pip", "export"]


def test_the_page_names_every_endpoint():
    from corral.server.app import create_app

    class Nothing:
        settings = None

    for route in create_app(Nothing(), Nothing()).routes:  # pyright: ignore
        path = route.path.replace("{name:path}", "NAME")
        assert f"`{path}" in PAGE or path == "/", path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--key-env"),
        (["--key-env", "NOT_SET_ANYWHERE"], "'NOT_SET_ANYWHERE'"),
        (["--raw", "nonsense"], "no model 'nonsense'"),
        (["--raw", "assistant=cria"], "Two things would be served as 'assistant'"),
        (["--origin", "chat.example.org"], "no origin"),
        (["--turns", "0"], "'turns'"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_loaded(env, options, said):
    done = run([*CORRAL, "serve", "examples/assistant.yaml", *options], env)
    assert done.returncode == 2
    assert said in done.stderr and len(done.stderr.splitlines()) == 1


def test_without_the_extra_the_command_says_what_to_install(env):
    code = "import sys; sys.modules['starlette'] = None; from corral.cli import main; main()"
    done = run([sys.executable, "-c", code, "serve", "examples/assistant.yaml"], env)
    assert done.returncode == 2
    assert done.stderr.endswith("pip install 'llama-corral[server]'\n")


def test_a_port_that_is_taken_is_said(url, env):
    port = url.rpartition(":")[2]
    done = run([*CORRAL, "serve", "examples/assistant.yaml", "--port", port], env)
    assert done.returncode == 2
    assert "--port" in done.stderr
