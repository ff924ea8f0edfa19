"""The README's blocks and the examples do what they say, on the real demonstration model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
PYTHON = [code for language, code in BLOCKS if language == "python"]
YAML = [code for language, code in BLOCKS if language == "yaml"]
SHELL = [code for language, code in BLOCKS if language in ("sh", "bash", "console")]


@pytest.fixture(scope="module", autouse=True)
async def fetched(cria, cria_guard) -> None:
    """The models are in the cache."""


def run_python(code: str, folder: Path) -> str:
    env = {**os.environ, "CORRAL_DATA": str(folder / "data")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readmes_python_runs_and_the_quickstart_answers(tmp_path: Path):
    printed = {code: run_python(code, tmp_path) for code in PYTHON}
    lines = printed[(ROOT / "examples" / "quickstart.py").read_text()].splitlines()
    assert "1047" in lines[0] and "shipped" in lines[0].lower()
    assert "turn_finished" in lines
    assert lines[-1] == "answered"


def test_the_readme_shows_the_assistant_as_it_is():
    assert (ROOT / "examples" / "assistant.yaml").read_text() in YAML


def test_the_readmes_commands_exist():
    from click.testing import CliRunner

    from corral.cli import main

    commands = [
        line.removeprefix("$ ").split("#")[0].split()
        for block in SHELL
        for line in block.splitlines()
    ]
    ours = [c for c in commands if c and c[0].endswith("corral")]
    assert ours
    for words in ours:
        groups = {"sessions", "models", "mcp"}
        path = words[1:3] if words[1] in groups else words[1:2]
        assert CliRunner().invoke(main, [*path, "--help"]).exit_code == 0, words
    for words in commands:
        if words and words[0].startswith("scripts/"):
            assert os.access(ROOT / words[0], os.X_OK), words
